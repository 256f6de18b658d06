"""The mailbox process: takes the copies for one store and stores them, in batches.

The order of a step states the guarantee (G2, G4): store durably, append retries and notifications, finish.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from gatepost.core.aftermath import Attempt, Scene, aftermath
from gatepost.core.dsn_wishes import wants_success
from gatepost.core.envelope import EnvelopeError
from gatepost.core.leaving import leaving
from gatepost.core.memory_body import MemoryBody
from gatepost.core.ports.content import Body, Content
from gatepost.core.ports.events import Events
from gatepost.core.ports.log import Consumer, Log, Record
from gatepost.core.ports.store import Delivery, Store, StoreOutcome, StoreResult
from gatepost.core.ports.transport import RemoteReply
from gatepost.core.records import Item, read_item
from gatepost.core.retry import plan_for
from gatepost.core.tables import Tables
from gatepost.core.topics import Topics
from gatepost.core.trace_lines import delivery_lines
from gatepost.telemetry import metrics
from gatepost.telemetry.tracing import Tracer, parse_traceparent
from gatepost.work.bodies import body_of, start_of
from gatepost.work.loop import WorkLoop
from gatepost.work.quarantine import Quarantine
from gatepost.work.telling import Teller

BATCH: Final = 200  # deliveries that share one sync
LARGE_AT_ONCE: Final = 4  # bodies out of the content topic in memory at the same time


class MailboxDependencies(msgspec.Struct, frozen=True):
    """All that the mailbox service touches; `store_name` is the store that this process serves.

    `together`: deliveries of a batch share the store's sync. Where each has an answer of its own (LMTP) each is
    concluded when that comes, so that a crash repeats only what had none.
    """

    log: Log
    content: Content
    quarantine: Quarantine
    store: Store
    store_name: str
    events: Events
    tracer: Tracer
    topics: Topics
    hostname: str
    now_ms: Callable[[], int]
    together: bool = True


class MailboxService:
    """Stores until stopped. Works without a configuration too: it only needs one for retry plans."""

    def __init__(self, deps: MailboxDependencies) -> None:
        self._deps = deps
        self._tables: Tables | None = None
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._teller = Teller("mailbox", deps.events, deps.tracer, deps.now_ms)
        self._loop = WorkLoop(
            deps.log,
            deps.topics.mailbox(deps.store_name),
            deps.topics.group(f"mailbox.{deps.store_name}"),
            self._batch,
            deps.quarantine,
            batch=BATCH if deps.together else 1,
        )

    def on_configuration(self, tables: Tables) -> None:
        self._tables = tables

    def stop(self) -> None:
        self._loop.stop()

    def gap(self) -> str | None:
        """A readiness check: what is wrong where a record that was to be read is gone."""
        return self._loop.gap

    async def run(self) -> None:
        """Work until stop()."""
        await self._loop.run()

    async def _batch(self, consumer: Consumer, records: Sequence[Record]) -> None:
        """Small messages together in one sync; each with a body by reference by itself."""
        small: list[tuple[Record, Item]] = []
        large: list[tuple[Record, Item]] = []
        for record in records:
            try:
                item = read_item(record)
            except EnvelopeError as error:
                await self._loop.set_aside(consumer, record, str(error))
                continue
            (small if item.envelope.content is None else large).append((record, item))
        async with asyncio.TaskGroup() as tasks:
            if small:
                tasks.create_task(self._store_small(consumer, small))
            for record, item in large:
                tasks.create_task(self._store_large(consumer, record, item))

    async def _store_small(self, consumer: Consumer, pairs: Sequence[tuple[Record, Item]]) -> None:
        deliveries = [_delivery(item, MemoryBody(item.inline, item.envelope.sha256)) for _, item in pairs]
        results = await self._deps.store.deliver(deliveries)
        for (record, item), result in zip(pairs, results, strict=True):
            await self._conclude(consumer, record, item, result, item.inline)

    async def _store_large(self, consumer: Consumer, record: Record, item: Item) -> None:
        async with self._large:
            body = await body_of(self._loop, self._deps.content, consumer, record, item)
            if body is None:
                return
            try:
                (result,) = await self._deps.store.deliver([_delivery(item, body)])
                silent = result.outcome is StoreOutcome.STORED and not _is_told(item)
                header = b"" if silent else await start_of(body)
                await self._conclude(consumer, record, item, result, header)
            finally:
                body.close()

    async def _conclude(
        self, consumer: Consumer, record: Record, item: Item, result: StoreResult, header: bytes
    ) -> None:
        stored = result.outcome is StoreOutcome.STORED
        if stored and not _is_told(item):
            consumer.finish(record)
            self._teller.stored(item.envelope, item.traceparent, self._deps.store_name)
            return
        if not stored:
            metrics.DELIVERIES.add(self._deps.store_name, result.outcome.value)
        deps = self._deps
        scene = Scene(deps.topics, deps.hostname, self._loop.topic, deps.now_ms(), delivers=True)
        attempt = Attempt(item.envelope.recipients[0], _reply(result))
        plan = plan_for(self._tables, item.envelope.reverse_path)
        after = aftermath(item, [attempt], plan, header, scene, item.traceparent, record.key)
        if await self._loop.persist(consumer, record, after.entries):
            if stored:
                self._teller.stored(item.envelope, item.traceparent, self._deps.store_name)
            self._teller.troubles(item.envelope, after, parse_traceparent(item.traceparent))


def _is_told(item: Item) -> bool:
    """Whether the sender asked to be told of the delivery."""
    return wants_success(item.envelope, item.envelope.recipients[0])


def _reply(result: StoreResult) -> RemoteReply:
    """The store's answer in SMTP's terms, with a code that fits the outcome."""
    code = result.code
    if result.outcome is StoreOutcome.STORED:
        return RemoteReply(250, "2.0.0", result.text)
    if result.outcome is StoreOutcome.DEFERRED and not 400 <= code < 500:
        code = 451
    if result.outcome is StoreOutcome.REFUSED and code < 500:
        code = 550
    return RemoteReply(code, result.enhanced, result.text, result.remote)


def _delivery(item: Item, body: Body) -> Delivery:
    envelope = item.envelope
    recipient = envelope.recipients[0]
    assert envelope.destination is not None
    return Delivery(
        id=recipient.id or envelope.id,
        mailbox=envelope.destination.mailbox,
        recipient=recipient.address,
        reverse_path=envelope.reverse_path,
        prepend=delivery_lines(envelope),
        body=leaving(body, envelope.strip, envelope.insert),
        received_ms=envelope.received_ms,
    )
