"""The relay process: sends the copies that the router gave it to their next hops.

The order of a step states the guarantee (G2, G5): send, append retries and notifications durably, finish.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from opentelemetry.trace import SpanKind

from gatepost.core import event_kinds
from gatepost.core.aftermath import Attempt, Scene, aftermath, put_aside
from gatepost.core.dsn_wishes import wants_success
from gatepost.core.envelope import Destination, Envelope, EnvelopeError, Recipient
from gatepost.core.leaving import leaving
from gatepost.core.ports.content import Body, Content
from gatepost.core.ports.events import Events
from gatepost.core.ports.log import Consumer, Log, LogError, Record
from gatepost.core.ports.resolver import Resolver
from gatepost.core.ports.transport import (
    HostFailure,
    OutgoingMessage,
    RemoteReply,
    TlsUse,
    Transport,
    TransportRecipient,
)
from gatepost.core.records import Item, read_item
from gatepost.core.retry import plan_for
from gatepost.core.tables import Tables
from gatepost.core.topics import Topics
from gatepost.relay.masquerade import Masquerades
from gatepost.relay.recent import RecentIds
from gatepost.relay.site_gate import Site, SiteGate
from gatepost.relay.targets import NoTarget, find_targets
from gatepost.telemetry import metrics
from gatepost.telemetry.tracing import Span, Tracer, parse_traceparent
from gatepost.work.bodies import CONTENT_LIMIT_S, body_of, start_of
from gatepost.work.loop import WorkLoop
from gatepost.work.quarantine import Quarantine
from gatepost.work.telling import Teller

INLINE_WHEN_DEFERRED: Final = 8 * 1024  # larger bodies wait in the content topic, not in the tier
OVERFLOW_TIER: Final = "1m"
SLOT_LIMIT_S: Final = (
    300.0  # a copy that waits longer for its turn at a site waits in a tier, and pins nothing here
)

# `dsn`: whoever is to be told of it was told, or is told by the next hop.
_BEFORE = RemoteReply(250, "2.0.0", "sent before this record was read again", dsn=True)


class RelayDependencies(msgspec.Struct, frozen=True):
    """All that the relay touches. `smtp_port` is the port of hosts found by MX; `own` are names and addresses of
    ours besides `hostname`."""

    log: Log
    content: Content
    quarantine: Quarantine
    resolver: Resolver
    transport: Transport
    events: Events
    tracer: Tracer
    topics: Topics
    hostname: str
    smtp_port: int
    concurrent_per_site: int
    now_ms: Callable[[], int]
    own: frozenset[str] = frozenset()


class RelayService:
    """Sends until stopped."""

    def __init__(self, deps: RelayDependencies) -> None:
        self._deps = deps
        self._tables: Tables | None = None
        self._masquerades: Masquerades | None = None
        self._gate = SiteGate(deps.concurrent_per_site)
        self._recent = RecentIds()
        self._teller = Teller("relay", deps.events, deps.tracer, deps.now_ms)
        self._loop = WorkLoop(
            deps.log, deps.topics.relay, deps.topics.group("relay"), self._handle, deps.quarantine
        )

    def on_configuration(self, tables: Tables) -> None:
        self._tables = tables
        self._masquerades = Masquerades(tables)

    def stop(self) -> None:
        """Let what is in hand end and return from run()."""
        self._loop.stop()

    def gap(self) -> str | None:
        """A readiness check: what is wrong where a record that was to be read is gone."""
        return self._loop.gap

    async def run(self) -> None:
        """Work until stop()."""
        await self._loop.run()

    async def _handle(self, consumer: Consumer, records: Sequence[Record]) -> None:
        (record,) = records
        try:
            item = read_item(record)
            destination = item.envelope.destination
            if destination is None:
                raise EnvelopeError("the copy has no destination")
        except EnvelopeError as error:
            await self._loop.set_aside(consumer, record, str(error))
            return
        site = self._gate.site(destination.site or destination.domain)
        if site.full or not await _slot(site):
            scene = self._scene()
            entry = put_aside(item, scene, OVERFLOW_TIER, "the site is busy", item.traceparent, record.key)
            await self._loop.persist(consumer, record, [entry])
            return
        try:
            await self._send(consumer, record, item, destination, site)
        finally:
            site.slots.release()

    def _scene(self) -> Scene:
        deps = self._deps
        return Scene(deps.topics, deps.hostname, deps.topics.relay, deps.now_ms())

    async def _send(
        self, consumer: Consumer, record: Record, item: Item, destination: Destination, site: Site
    ) -> None:
        if self._loop.stopping or not consumer.owns(record.partition):
            return  # another member has it by now
        body = await body_of(self._loop, self._deps.content, consumer, record, item)
        if body is None:
            return
        parent = parse_traceparent(item.traceparent)
        try:
            with self._deps.tracer.start("gatepost.relay send", parent, kind=SpanKind.CLIENT) as span:
                span.set("messaging.message.id", item.envelope.id)
                span.set("gatepost.site", destination.site)
                async with self._recent.turn(recipient.id for recipient in item.envelope.recipients):
                    attempts = await self._attempts(item.envelope, destination, site, body, span)
            await self._conclude(consumer, record, item, attempts, body)
        finally:
            body.close()

    async def _attempts(
        self, envelope: Envelope, destination: Destination, site: Site, body: Body, span: Span
    ) -> list[Attempt]:
        """One attempt for each recipient; those that were sent before are left out of it."""
        before = [recipient for recipient in envelope.recipients if recipient.id in self._recent]
        todo = [recipient for recipient in envelope.recipients if recipient.id not in self._recent]
        attempts = [Attempt(recipient, _BEFORE) for recipient in before]
        if todo:
            replies = await self._try(envelope, destination, site, body, todo, span)
            attempts += [Attempt(recipient, reply) for recipient, reply in zip(todo, replies, strict=True)]
        for attempt in attempts:
            if attempt.reply.code < 300:
                self._recent.add(attempt.recipient.id)
        return attempts

    async def _try(
        self,
        envelope: Envelope,
        destination: Destination,
        site: Site,
        body: Body,
        recipients: Sequence[Recipient],
        span: Span,
    ) -> Sequence[RemoteReply]:
        """Try the hosts in order until one takes the conversation; a reply for each recipient."""
        deps = self._deps
        open_breaker = site.broken(deps.now_ms())
        if open_breaker is not None:
            return [open_breaker] * len(recipients)
        try:
            targets = await find_targets(deps.resolver, destination, deps.hostname, deps.smtp_port, deps.own)
        except NoTarget as nowhere:
            return [nowhere.reply] * len(recipients)
        message = _outgoing(envelope, recipients, body)
        if self._masquerades is not None:
            message = await self._masquerades.apply(message)
        last = RemoteReply(451, "4.4.1", "no host could be tried")
        for target in targets:
            try:
                replies = await deps.transport.send(target, message, TlsUse.OPPORTUNISTIC, self._helo(envelope))
            except HostFailure as failure:
                last = failure.reply
                span.event("host failed", host=target.name, address=target.address, reason=last.text)
                continue
            site.reached()
            span.set("server.address", target.name)
            return [_as_meant(reply) for reply in replies]
        if last.code >= 500:
            # A greeting or EHLO of 5xx is about the host, not the message: other hosts were tried, now wait.
            last = msgspec.structs.replace(last, code=451, enhanced="4.4.1")
        site.unreachable(last, deps.now_ms())
        return [last] * len(recipients)

    def _helo(self, envelope: Envelope) -> str:
        if self._tables is not None and envelope.reverse_path:
            config = self._tables.domain(envelope.reverse_path.rpartition("@")[2])
            if config is not None and config.helo_name:
                return config.helo_name
        return self._deps.hostname

    async def _conclude(
        self, consumer: Consumer, record: Record, item: Item, attempts: Sequence[Attempt], body: Body
    ) -> None:
        for attempt in attempts:
            metrics.SENT.add(f"{attempt.reply.code // 100}xx")
        header = b""
        if any(attempt.reply.code >= 400 for attempt in attempts):
            item = await self._lightened(consumer, record, item, attempts, body)
            header = await start_of(body)
        elif any(wants_success(item.envelope, attempt.recipient) for attempt in attempts):
            header = await start_of(body)
        plan = plan_for(self._tables, item.envelope.reverse_path)
        trace = parse_traceparent(item.traceparent)
        back = self._masquerades.return_path(item.envelope.reverse_path) if self._masquerades else None
        after = aftermath(item, attempts, plan, header, self._scene(), item.traceparent, record.key, back)
        if await self._loop.persist(consumer, record, after.entries):
            for told in after.sent:
                self._teller.done(event_kinds.SENT, item.envelope, told, trace, told.reply.remote)
            self._teller.troubles(item.envelope, after, trace)

    async def _lightened(
        self, consumer: Consumer, record: Record, item: Item, attempts: Sequence[Attempt], body: Body
    ) -> Item:
        """The item with its body in the content topic, when it is going to wait and is not small."""
        if len(item.inline) <= INLINE_WHEN_DEFERRED or all(not 400 <= a.reply.code < 500 for a in attempts):
            return item
        try:
            reference = await self._deps.content.write(item.envelope.id, body, CONTENT_LIMIT_S)
        except LogError:
            return item  # heavier, but right
        envelope = msgspec.structs.replace(item.envelope, content=reference)
        return Item(envelope, b"", item.traceparent)


async def _slot(site: Site) -> bool:
    """Wait for a place among the messages that go to a site at the same time; False when it took too long."""
    site.waiting += 1
    try:
        async with asyncio.timeout(SLOT_LIMIT_S):
            return await site.slots.acquire()
    except TimeoutError:
        return False
    finally:
        site.waiting -= 1


def _as_meant(reply: RemoteReply) -> RemoteReply:
    """RFC 5321 4.5.3.1.10: 552 to RCPT is what old servers say for 452, too many recipients."""
    if reply.code == 552 and reply.command == "RCPT":
        enhanced = "4" + reply.enhanced[1:] if reply.enhanced else ""
        return msgspec.structs.replace(reply, code=452, enhanced=enhanced)
    return reply


def _outgoing(envelope: Envelope, recipients: Sequence[Recipient], body: Body) -> OutgoingMessage:
    return OutgoingMessage(
        id=envelope.id,
        reverse_path=envelope.reverse_path,
        recipients=tuple(
            TransportRecipient(recipient.id, recipient.address, recipient.notify, recipient.orcpt)
            for recipient in recipients
        ),
        prepend=envelope.prepend.encode("utf-8", "surrogateescape"),
        body=leaving(body, envelope.strip, envelope.insert),
        body_type=envelope.body,
        smtputf8=envelope.smtputf8,
        ret=envelope.ret,
        envid=envelope.envid,
    )
