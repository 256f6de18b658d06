"""The router process: takes accepted messages, decides where each copy goes, and hands them on.

The order of a step states the guarantee (G2): decide, append every output durably, then finish the input. Records
that come together and need nothing that has to be waited for are decided and appended together; every other one
goes its own way, so that none waits for another's directory or name server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import structlog
from opentelemetry.trace import SpanKind

from gatepost.core import event_kinds
from gatepost.core.dsn_wishes import wants_success
from gatepost.core.envelope import Destination, Envelope, EnvelopeError
from gatepost.core.message import header_facts
from gatepost.core.ports.content import ContentDamaged
from gatepost.core.ports.directory import DirectoryUnavailable
from gatepost.core.ports.events import Event
from gatepost.core.ports.log import Consumer, Entry, LogError, LogGap, Record
from gatepost.core.ports.resolver import NoSuchDomain, ResolverFailure
from gatepost.core.records import Item, read_item
from gatepost.core.routing import GoesNowhere
from gatepost.core.sites import site_of_hosts, site_of_mx
from gatepost.core.tables import Tables
from gatepost.router.copies import Copy, Expansion, NearCopy, Problem
from gatepost.router.decision import Decision, Routed
from gatepost.router.dependencies import RouterDependencies
from gatepost.router.expansion import Expander
from gatepost.router.outputs import (
    Wishes,
    expansion_entry,
    mailbox_entry,
    mailbox_envelope,
    notification_entry,
    relay_entries,
)
from gatepost.router.stopping import split
from gatepost.router.stopping import tell as tell_stopped
from gatepost.telemetry import metrics
from gatepost.telemetry.tracing import parse_traceparent
from gatepost.work.at_once import at_once
from gatepost.work.loop import APPEND_LIMIT_S, WorkLoop
from gatepost.work.quarantine import lost_reason
from gatepost.work.telling import Teller

BATCH: Final = 100  # records decided in one go: some 5 ms in which an edge in the same process would have to wait
CONTENT_LIMIT_S: Final = 30.0
MX_LIMIT_S: Final = 10.0  # a site's name is not worth a longer wait: the domain's name serves as well

_log = structlog.get_logger()

SKEW_MS: Final = 150_000  # how much older this process's view of a directory may be than an edge's
_NO_SUCH_USER: Final = ("5.1.1", "5.2.1")


class Router:
    """Routes until stopped. `on_configuration` may be called at any time; the first one starts the work."""

    def __init__(self, deps: RouterDependencies) -> None:
        self._deps = deps
        self._tables: Tables | None = None
        # Near stores have no mailbox service of their own to tell of what they have stored.
        self._teller = Teller("mailbox", deps.events, deps.tracer, deps.now_ms)
        self._configured = asyncio.Event()
        self._loop = WorkLoop(
            deps.log,
            deps.topics.accepted,
            deps.topics.group("router"),
            self._handle,
            deps.quarantine,
            batch=BATCH,
        )

    def on_configuration(self, tables: Tables) -> None:
        self._tables = tables
        self._configured.set()

    def stop(self) -> None:
        """Let what is in hand end and return from run()."""
        self._loop.stop()
        self._configured.set()

    def gap(self) -> str | None:
        """A readiness check: what is wrong where a record that was to be read is gone."""
        return self._loop.gap

    @property
    def leads(self) -> bool:
        """Whether this one of all routers does what only one of them needs to do."""
        return self._loop.owns(0)

    async def run(self) -> None:
        """Work until stop()."""
        await self._configured.wait()
        await self._loop.run()

    async def _handle(self, consumer: Consumer, records: Sequence[Record]) -> None:
        """Several records together, as far as they can be decided at once; a single one with patience."""
        if len(records) > 1:
            await self._together(consumer, records)
            return
        (record,) = records
        if await self._loop.patiently(consumer, record, lambda: self._step(record), "router.waits"):
            consumer.finish(record)

    async def _together(self, consumer: Consumer, records: Sequence[Record]) -> None:
        decisions: list[Decision] = []
        others: list[Record] = []
        for record in records:
            try:
                decisions.append(at_once(self._decide(record)))
            except Exception:  # told when the record is handled by itself
                others.append(record)
        self._loop.apart(consumer, others)
        try:
            await self._make_durable(decisions)
        except LogError as error:
            for decision in decisions:
                decision.failed(error)
            # Appended again under the same ids (G3).
            self._loop.apart(consumer, [decision.record for decision in decisions])
            return
        for decision in decisions:
            consumer.finish(decision.record)
        for decision in decisions:
            self._conclude(decision)

    async def _step(self, record: Record) -> None:
        decision = await self._decide(record)
        try:
            await self._make_durable([decision])
        except LogError as error:
            decision.failed(error)
            raise
        self._conclude(decision)

    async def _make_durable(self, decisions: Sequence[Decision]) -> None:
        """Put copies into near stores and append the rest. Raises LogError."""
        entries = [entry for decision in decisions for entry in decision.entries]
        near = [copy for decision in decisions for copy in decision.near]
        if near and self._deps.near is not None:
            stored = await self._deps.near.deliver(near)
            for decision in decisions:
                if decision.near and decision.routed is not None:
                    decision.routed.stored = [copy for copy in decision.near if copy.envelope.id in stored]
            entries += [
                mailbox_entry(self._deps.topics, copy.envelope, copy.inline, copy.traceparent)
                for copy in near
                if copy.envelope.id not in stored
            ]
        if entries:
            await self._deps.log.append_many(entries, APPEND_LIMIT_S)

    def _conclude(self, decision: Decision) -> None:
        """What is durable is told."""
        if decision.stopped is not None:
            tell_stopped(decision.stopped, self._deps.events, self._deps.now_ms)
        if decision.routed is not None:
            self._tell(decision.routed)
            decision.routed.span.end()

    async def _decide(self, record: Record) -> Decision:
        """Decide where the copies go, without any effect. All that waits comes first: see at_once."""
        try:
            item = read_item(record)
        except EnvelopeError as error:
            return Decision(record, [await self._deps.quarantine.entry(record, str(error))])
        rest, stopped = split(record, item)
        entries = []
        if stopped is not None:
            entries.append(await self._deps.quarantine.kept(stopped.record, stopped.reason))
        decision = Decision(record, entries, stopped=stopped) if rest is None else await self._route(record, rest)
        if rest is not None and stopped is not None:
            decision.entries, decision.stopped = [*entries, *decision.entries], stopped
        return decision

    async def _route(self, record: Record, item: Item) -> Decision:
        began_ms = self._deps.now_ms()
        try:
            expansion = await self._expand(item)
            message = await self._message(item) if expansion.problems else b""
        except (ContentDamaged, LogGap) as error:  # an alarm: trying again would never end (G6)
            return Decision(record, [self._deps.quarantine.without_body(record, lost_reason(error))])
        to_relay = [copy for copy in expansion.copies if not copy.goes.destination.store]
        sites = await self._sites(to_relay) if to_relay else {}
        span = self._deps.tracer.start(
            "gatepost.router route",
            parse_traceparent(item.traceparent),
            kind=SpanKind.CONSUMER,
            start_ns=began_ms * 1_000_000,
        )
        span.set("messaging.message.id", item.envelope.id)
        traceparent = span.context.traceparent
        entries, near = self._mailboxes(item, expansion, traceparent)
        entries += self._entries(item, expansion, sites, message, traceparent)
        return Decision(record, entries, Routed(item.envelope, expansion, span), near)

    async def _expand(self, item: Item) -> Expansion:
        assert self._tables is not None
        expander = Expander(self._tables, self._deps.directories, self._deps.stores, item.envelope.reverse_path)
        for recipient in item.envelope.recipients:
            await expander.add(recipient.address)
        expansion = expander.result()
        if self._contradicts_the_edge(item.envelope, expansion):
            raise DirectoryUnavailable(
                "the edge has verified a recipient whom the directory does not know here, yet"
            )
        if any(copy.forwarded and not copy.goes.destination.store for copy in expansion.copies):
            return await self._without_loops(item, expansion)
        return expansion

    def _contradicts_the_edge(self, envelope: Envelope, expansion: Expansion) -> bool:
        """Whether a recipient that an edge verified a moment ago is unknown here.

        Replicas, caches and mounted files are not equally new everywhere: that must not become a bounce (G6).
        """
        if not envelope.client.listener or self._deps.now_ms() - envelope.received_ms > SKEW_MS:
            return False
        return any(
            problem.goes.enhanced in _NO_SUCH_USER
            and not problem.goes.meant
            and problem.address.lower() == problem.original.lower()
            for problem in expansion.problems
        )

    async def _without_loops(self, item: Item, expansion: Expansion) -> Expansion:
        """Turn forwardings that this message has been through before into failures."""
        passed = header_facts(await self._message(item)).delivered_to
        if not passed:
            return expansion
        copies, problems = [], list(expansion.problems)
        for copy in expansion.copies:
            if copy.forwarded and not copy.goes.destination.store and copy.original.lower() in passed:
                loop = GoesNowhere("5.4.6", "the message has been forwarded by this address before: a loop")
                problems.append(Problem(copy.original, copy.original, loop))
            else:
                copies.append(copy)
        return Expansion(tuple(copies), tuple(problems), expansion.dropped)

    async def _message(self, item: Item) -> bytes:
        if item.envelope.content is None:
            return item.inline
        body = await self._deps.content.read(item.envelope.content, CONTENT_LIMIT_S)
        try:
            return body.whole()
        finally:
            body.close()

    def _mailboxes(
        self, item: Item, expansion: Expansion, traceparent: bytes
    ) -> tuple[list[Entry], list[NearCopy]]:
        """The copies for mailboxes: as records, or for near stores, whom a body by reference would hold up."""
        entries: list[Entry] = []
        copies: list[NearCopy] = []
        near = self._deps.near if item.envelope.content is None else None
        wishes = Wishes(item.envelope, expansion.copies)
        for copy in expansion.copies:
            store = copy.goes.destination.store
            if not store:
                continue
            own = mailbox_envelope(item.envelope, copy, wishes)
            # Who wants to be told of the delivery is told by the mailbox service.
            if near is not None and near.takes(store) and not wants_success(own, own.recipients[0]):
                copies.append(NearCopy(own, item.inline, traceparent))
            else:
                entries.append(mailbox_entry(self._deps.topics, own, item.inline, traceparent))
        return entries, copies

    def _entries(
        self,
        item: Item,
        expansion: Expansion,
        sites: Mapping[str, Sequence[Copy]],
        message: bytes,
        traceparent: bytes,
    ) -> list[Entry]:
        """For sites and notifications. `message` is needed only where there are problems to notify of."""
        envelope, inline, topics = item.envelope, item.inline, self._deps.topics
        entries: list[Entry] = []
        wishes = Wishes(envelope, expansion.copies)
        if sites:
            entries += relay_entries(topics, envelope, inline, traceparent, sites, wishes)
        if wishes.expanded():
            told = expansion_entry(
                topics, envelope, wishes, inline, self._deps.hostname, self._deps.now_ms(), traceparent
            )
            if told is not None:
                entries.append(told)
        if expansion.problems:
            notification = notification_entry(
                topics,
                envelope,
                expansion.problems,
                message,
                self._deps.hostname,
                self._deps.now_ms(),
                traceparent,
            )
            if notification is not None:
                entries.append(notification)
        return entries

    async def _sites(self, copies: list[Copy]) -> dict[str, list[Copy]]:
        """Group copies by site; domains with one set of MX hosts share one."""
        sites: dict[str, list[Copy]] = {}
        names: dict[str, str] = {}
        for copy in copies:
            destination = copy.goes.destination
            key = ",".join(destination.hosts) or destination.domain
            if key not in names:
                names[key] = await self._site(destination)
            sites.setdefault(names[key], []).append(copy)
        return sites

    async def _site(self, destination: Destination) -> str:
        if destination.hosts:
            return site_of_hosts(destination.hosts)
        try:
            async with asyncio.timeout(MX_LIMIT_S):
                return site_of_mx(destination.domain, await self._deps.resolver.mx(destination.domain))
        except (NoSuchDomain, ResolverFailure, TimeoutError):
            return site_of_mx(destination.domain, ())

    def _tell(self, routed: Routed) -> None:
        envelope, expansion, span = routed.envelope, routed.expansion, routed.span
        now = self._deps.now_ms()
        for copy in expansion.copies:
            destination = copy.goes.destination
            where = destination.store or ",".join(destination.hosts) or destination.domain
            metrics.ROUTED.add("store" if destination.store else "relay")
            span.event("routed", recipient=str(copy.goes.address), destination=where)
            self._deps.events.emit(
                Event(
                    envelope.id,
                    event_kinds.ROUTED,
                    now,
                    span.context.trace_id,
                    parent=envelope.parent,
                    service="router",
                    recipient=str(copy.goes.address),
                    facts={"destination": where, "original": copy.original},
                )
            )
        for problem in expansion.problems:
            metrics.ROUTED.add("failed")
            _log.info("router.failed", id=envelope.id, recipient=problem.address, reason=problem.goes.text)
            self._deps.events.emit(
                Event(
                    envelope.id,
                    event_kinds.FAILED,
                    now,
                    span.context.trace_id,
                    parent=envelope.parent,
                    service="router",
                    recipient=problem.address,
                    facts={"status": problem.goes.enhanced, "reason": problem.goes.text},
                )
            )
        for stored in routed.stored:
            self._teller.stored(stored.envelope, stored.traceparent, stored.store)
        if expansion.dropped:
            metrics.ROUTED.add("discarded", by=expansion.dropped)
            self._deps.events.emit(
                Event(envelope.id, event_kinds.DISCARDED, now, span.context.trace_id, service="router")
            )
