"""Mailboxes of another program behind LMTP (RFC 2033), as Dovecot: each recipient gets its own reply."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import structlog

from gatepost.backends.smtp_client import Dialect, SmtpTransport
from gatepost.backends.smtp_client.limits import lmtp_limits
from gatepost.core.endpoints import parse_endpoint
from gatepost.core.envelope import BodyType
from gatepost.core.manifest.settings import LmtpSettings
from gatepost.core.ports.store import Delivery, StoreOutcome, StoreResult
from gatepost.core.ports.transport import (
    HostFailure,
    HostPort,
    OutgoingMessage,
    RemoteReply,
    TlsUse,
    TransportRecipient,
)

# Ids that were finished lately: a record that comes again within the process is not sent twice, and neither is the
# copy of a client's retry under the id of its first try (docs/adr/0006). A window of the log is some thousand
# records; a retry comes after 5 to 30 minutes, in which a busy store takes this many. About 10 MB.
REMEMBERED: Final = 100_000

_STORED: Final = StoreResult(StoreOutcome.STORED)
_STOPPING: Final = StoreResult(StoreOutcome.DEFERRED, 421, "4.3.2", "The mailbox store is not running")
_FAULT: Final = StoreResult(StoreOutcome.DEFERRED, 451, "4.3.0", "The mailbox server cannot be asked now")

_log = structlog.get_logger("gatepost.store")


class LmtpStore:
    """core.ports.store.Store: exactly once while this process lives, at least once beyond."""

    def __init__(self, settings: LmtpSettings, hostname: str) -> None:
        host, port = parse_endpoint(settings.address, lowest=1)
        self._host = HostPort(name=host, address=host, port=port)
        self._hostname = hostname
        self._transport = SmtpTransport(dialect=Dialect.LMTP, limits=lmtp_limits(settings))
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._in_flight: dict[str, asyncio.Task[StoreResult]] = {}
        self._closing = False

    async def start(self) -> None:
        """Nothing is opened: a server that is away defers mail, it does not stop the pod."""

    async def close(self) -> None:
        """Wait for what is on its way, then close the connections."""
        self._closing = True
        if self._in_flight:
            await asyncio.wait(set(self._in_flight.values()))
        await self._transport.close()

    async def deliver(self, deliveries: Sequence[Delivery]) -> Sequence[StoreResult]:
        tasks = [self._task(delivery) for delivery in deliveries]
        if tasks:
            # Not gather: a cancelled caller must not break a delivery off whose outcome would be unknown then.
            await asyncio.wait(set(tasks))
        return [task.result() for task in tasks]

    def _task(self, delivery: Delivery) -> asyncio.Task[StoreResult]:
        running = self._in_flight.get(delivery.id)
        if running is not None:
            return running
        task = asyncio.create_task(self._deliver_one(delivery), name="lmtp-delivery")
        self._in_flight[delivery.id] = task
        task.add_done_callback(lambda _: self._in_flight.pop(delivery.id, None))
        return task

    async def _deliver_one(self, delivery: Delivery) -> StoreResult:
        if delivery.id in self._finished:
            return _STORED
        if self._closing:
            return _STOPPING
        message = OutgoingMessage(
            id=delivery.id,
            reverse_path=delivery.reverse_path,
            recipients=(TransportRecipient(delivery.id, delivery.recipient or delivery.mailbox),),
            prepend=delivery.prepend,
            body=delivery.body,
            # Mail that was accepted is not bounced because the own mailbox server does not say 8BITMIME; none is
            # known that could not store 8 bits.
            body_type=BodyType.SEVEN_BIT,
            smtputf8=False,
        )
        try:
            [reply] = await self._transport.send(self._host, message, TlsUse.NEVER, self._hostname)
        except HostFailure as failure:
            return _unavailable(failure.reply)
        except Exception:
            _log.exception("store_fault", id=delivery.id)
            return _FAULT
        if reply.code < 300:
            self._remember(delivery.id)
        return _result(reply)

    def _remember(self, message_id: str) -> None:
        self._finished[message_id] = None
        if len(self._finished) > REMEMBERED:
            self._finished.popitem(last=False)


def _result(reply: RemoteReply) -> StoreResult:
    outcome = StoreOutcome.STORED if reply.code < 300 else StoreOutcome.DEFERRED
    if reply.code >= 500:
        outcome = StoreOutcome.REFUSED
    default = f"{str(reply.code)[0]}.0.0"
    return StoreResult(outcome, reply.code, reply.enhanced or default, reply.text, reply.remote)


def _unavailable(reply: RemoteReply) -> StoreResult:
    """A host that takes nothing at all is a fault of the set-up, not of the mail: always temporary."""
    enhanced = reply.enhanced if reply.enhanced.startswith("4.") else "4.4.2"
    code = reply.code if 400 <= reply.code < 500 else 451
    return StoreResult(StoreOutcome.DEFERRED, code, enhanced, reply.text, reply.remote)
