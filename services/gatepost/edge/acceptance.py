"""From a complete message to a durable record: the envelope, the append, and what the client is told.

250 is answered only when the log has the record (and the content topic the body, where it is large). What is left
to write after the final dot shares one time limit, settings.log.appendTimeout; it begins when the last piece of a
large body has had its turn among others.
"""

from __future__ import annotations

import asyncio

import msgspec
import structlog
from opentelemetry.trace import SpanKind

from gatepost.core.checks.verdict import tag_field
from gatepost.core.envelope import (
    ENVELOPE_HEADER,
    TRACEPARENT_HEADER,
    VERSION,
    BodyType,
    Client,
    Envelope,
    Trust,
    encode_envelope,
)
from gatepost.core.in_doubt import fingerprint, is_distinct
from gatepost.core.leaving import merged
from gatepost.core.manifest.quantities import seconds
from gatepost.core.ports.log import Entry, LogUnavailable, LogUnknown
from gatepost.core.ports.state import StateError
from gatepost.core.received import Reception, received_field
from gatepost.core.removal import NOTHING_REMOVED
from gatepost.core.reply import Reply
from gatepost.core.smtp_replies import NOT_DURABLE
from gatepost.edge import journal
from gatepost.edge.body import ReceivedBody
from gatepost.edge.dependencies import EdgeDependencies
from gatepost.edge.in_doubt import Claim, InDoubt
from gatepost.edge.transaction import SPAN, Transaction
from gatepost.telemetry import metrics

_log = structlog.get_logger("gatepost.edge")


class Acceptor:
    """Accepts messages for all sessions of an edge."""

    def __init__(self, deps: EdgeDependencies, hostname: str) -> None:
        self._deps, self._hostname = deps, hostname
        self.limit = seconds(deps.settings.log.append_timeout)
        self._topic = deps.topics.accepted
        self.in_doubt = InDoubt(deps.state, deps.now_ms, lambda: deps.log.available)

    async def accept(
        self,
        transaction: Transaction,
        body: ReceivedBody,
        client: Client,
        loop: asyncio.AbstractEventLoop,
        *,
        extended: bool,
        eight_bit: bool,
    ) -> str | Reply:
        """Make the message durable and return its id, or the refusal. Not cancelled when the client goes away.

        `loop` is the running one, which to ask for would be a call of the system each time.
        """
        if not transaction.recipients:
            return body.message_id  # a policy discards it for everybody; each was told at its RCPT
        started = loop.time()
        now_ms = self._deps.now_ms()
        message_id = body.message_id
        span = transaction.span or self._deps.tracer.start(SPAN, kind=SpanKind.PRODUCER, sampled=False)
        span.set("messaging.message.id", message_id)
        span.set("messaging.message.body.size", body.size)
        original: Claim | None = None
        try:
            original = await self._first_try(transaction, body, client)
            if original is not None:
                message_id = original.id
                span.set("messaging.message.id", message_id)
            envelope = self._envelope(
                transaction, body, client, message_id, now_ms, extended=extended, eight_bit=eight_bit
            )
            value = b""
            if body.inline:
                value = body.whole()
            else:
                envelope = msgspec.structs.replace(envelope, content=await body.stored())
            entry = Entry(
                self._topic,
                value,
                headers=(
                    (ENVELOPE_HEADER, encode_envelope(envelope)),
                    (TRACEPARENT_HEADER, span.context.traceparent),
                ),
            )
            left = max(started, body.handed_over) + self.limit - loop.time()
            await self._append(entry, envelope, original, max(0.0, left))
        except LogUnavailable as error:
            span.fail("log unavailable")
            _log.warning("not stored", id=message_id, reason=str(error))
            return NOT_DURABLE
        except LogUnknown as error:
            span.fail("append in doubt")
            _log.warning("append in doubt", id=message_id, reason=str(error))
            return NOT_DURABLE
        except StateError as error:
            span.fail("shared memory unavailable")
            _log.warning("not stored", id=message_id, reason=str(error))
            return NOT_DURABLE
        finally:
            if original is not None:
                self.in_doubt.give_back(original)
        found = {} if transaction.authentication is None else transaction.authentication.facts
        journal.accepted(self._deps, envelope, span.context, loop.time() - started, found)
        return envelope.id

    async def _first_try(self, transaction: Transaction, body: ReceivedBody, client: Client) -> Claim | None:
        """The append in doubt that this message is the retry of. Raises StateError."""
        if self.in_doubt.empty:
            return None
        sender = "" if transaction.mail.address is None else str(transaction.mail.address)
        recipients = [recipient.address for recipient in transaction.recipients.values()]
        print_ = fingerprint(client.address, client.login, sender, recipients, body.size, body.sha256)
        return await self.in_doubt.claim(print_, self.limit)

    async def _append(self, entry: Entry, envelope: Envelope, original: Claim | None, limit: float) -> None:
        """Make the record durable; for a retry whose first try turned out written, it is. Raises LogError."""
        if original is None or not original.written:
            try:
                await self._deps.log.append(entry, limit)
            except LogUnknown as error:
                self._doubt(entry, envelope, original, error)
                raise
        if original is not None:
            original.spent = True

    def _doubt(self, entry: Entry, envelope: Envelope, original: Claim | None, error: LogUnknown) -> None:
        """The one place where an append is in doubt: the client is told 451 and will send the message again.

        Pieces of a body never are: a retry writes them anew, and only the record that names them is a message.
        """
        metrics.APPENDS_IN_DOUBT.add()
        # A message that is not inline is not looked at: no alarm bell sends 64 KiB.
        if envelope.content is None and not is_distinct(entry.value or b""):
            metrics.DOUBTS_RESOLVED.add("forgotten")
            return
        client = envelope.client
        recipients = [recipient.address for recipient in envelope.recipients]
        print_ = fingerprint(
            client.address, client.login, envelope.reverse_path, recipients, envelope.size, envelope.sha256
        )
        self.in_doubt.doubt(envelope.id, print_, error.outcome, original)

    def _envelope(
        self,
        transaction: Transaction,
        body: ReceivedBody,
        client: Client,
        message_id: str,
        now_ms: int,
        *,
        extended: bool,
        eight_bit: bool,
    ) -> Envelope:
        mail = transaction.mail
        recipients = tuple(transaction.recipients.values())
        prepend = received_field(
            Reception(
                helo=client.helo,
                client=client.address,
                hostname=self._hostname,
                message_id=message_id,
                received_ms=now_ms,
                extended=extended,
                tls=client.tls,
                authenticated=bool(client.login),
                smtputf8=mail.smtputf8,
                only_recipient=recipients[0].address if len(recipients) == 1 else "",
                port=client.port,
                name=client.name,
            )
        )
        authentication = transaction.authentication
        if authentication is not None:
            prepend = authentication.field + prepend  # RFC 8601 4: above our own Received
        verified = Trust.UNVERIFIED if authentication is None else authentication.trust
        tags = tuple(transaction.tags)
        if tags:
            # Above our own Received: what stands there, only we can have written.
            prepend = "".join(map(tag_field, tags)) + prepend
        forged = () if authentication is None else authentication.strip
        removal = transaction.removal or NOTHING_REMOVED
        return Envelope(
            v=VERSION,
            id=message_id,
            reverse_path="" if mail.address is None else str(mail.address),
            recipients=recipients,
            received_ms=now_ms,
            size=body.size,
            sha256=body.sha256,
            client=client,
            # A client that may relay by its network does so only with a sender of the rule's own domains.
            trust=Trust.AUTHENTICATED if client.login or transaction.relays_by_itself else verified,
            # Undeclared 8-bit content needs 8BITMIME as much as declared one (RFC 6152 3).
            body=BodyType.EIGHT_BIT_MIME if eight_bit else mail.body,
            smtputf8=mail.smtputf8,
            ret=mail.ret,
            envid=mail.envid,
            prepend=prepend,
            tags=tags,
            strip=merged((*forged, *removal.strip)) if removal.strip else forged,
            insert=removal.insert,
        )
