"""From a complete message to a durable record: the envelope, the append, and what the client is told.

250 is answered only when the log has the record (and the content topic the body, where it is large). Everything
after the final dot shares one time limit, settings.log.appendTimeout.
"""

from __future__ import annotations

import asyncio

import msgspec
import structlog
from opentelemetry.trace import SpanKind

from gatepost.core.envelope import (
    ENVELOPE_HEADER,
    INLINE_LIMIT,
    TRACEPARENT_HEADER,
    VERSION,
    BodyType,
    Client,
    Envelope,
    Trust,
    encode_envelope,
)
from gatepost.core.ids import new_id
from gatepost.core.manifest.quantities import seconds
from gatepost.core.ports.log import Entry, LogUnavailable, LogUnknown
from gatepost.core.received import Reception, received_field
from gatepost.core.reply import Reply
from gatepost.core.smtp_replies import NOT_DURABLE, SPOOL_FAILED
from gatepost.edge import journal
from gatepost.edge.body import ReceivedBody, SpoolError
from gatepost.edge.dependencies import EdgeDependencies
from gatepost.edge.transaction import SPAN, Transaction

_log = structlog.get_logger("gatepost.edge")


class Acceptor:
    """Accepts messages for all sessions of an edge."""

    def __init__(self, deps: EdgeDependencies, hostname: str) -> None:
        self._deps, self._hostname = deps, hostname
        self._limit = seconds(deps.settings.log.append_timeout)
        self._topic = deps.topics.accepted

    async def accept(
        self,
        transaction: Transaction,
        body: ReceivedBody,
        client: Client,
        *,
        extended: bool,
        eight_bit: bool,
    ) -> str | Reply:
        """Make the message durable and return its id, or the refusal. Not cancelled when the client goes away."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        now_ms = self._deps.now_ms()
        message_id = new_id(now_ms)
        span = transaction.span or self._deps.tracer.start(SPAN, kind=SpanKind.PRODUCER, sampled=False)
        span.set("messaging.message.id", message_id)
        span.set("messaging.message.body.size", body.size)
        try:
            await body.finish(self._limit)
            envelope = self._envelope(
                transaction, body, client, message_id, now_ms, extended=extended, eight_bit=eight_bit
            )
            value = b""
            if envelope.size > INLINE_LIMIT:
                ref = await self._deps.content.write(envelope.id, body, self._left(started))
                envelope = msgspec.structs.replace(envelope, content=ref)
            else:
                value = body.whole()
            entry = Entry(
                self._topic,
                value,
                headers=(
                    (ENVELOPE_HEADER, encode_envelope(envelope)),
                    (TRACEPARENT_HEADER, span.context.traceparent),
                ),
            )
            await self._deps.log.append(entry, self._left(started))
        except SpoolError as error:
            span.fail("spool")
            _log.error("spool failed", id=message_id, reason=str(error))
            return SPOOL_FAILED
        except LogUnavailable as error:
            span.fail("log unavailable")
            _log.warning("not stored", id=message_id, reason=str(error))
            return NOT_DURABLE
        except LogUnknown as error:
            # The one place where an append is in doubt: the client is told 451 and will send the message again,
            # while error.outcome may still tell that the record of message_id was written.
            span.fail("append in doubt")
            _log.warning("append in doubt", id=message_id, reason=str(error))
            return NOT_DURABLE
        journal.accepted(self._deps, envelope, span.context, loop.time() - started)
        return envelope.id

    def _left(self, started: float) -> float:
        return max(0.0, self._limit - (asyncio.get_running_loop().time() - started))

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
            )
        )
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
            trust=Trust.AUTHENTICATED if client.login or transaction.relaying else Trust.UNVERIFIED,
            # Undeclared 8-bit content needs 8BITMIME as much as declared one (RFC 6152 3).
            body=BodyType.EIGHT_BIT_MIME if eight_bit else mail.body,
            smtputf8=mail.smtputf8,
            prepend=prepend,
        )
