"""Appending: one idempotent producer for all topics, with limits, and a new one where the old one is spoilt.

docs/adr/0002-kafka-producer-idempotence.md has the reasons. An idempotent producer retries a batch for ever and
the broker drops what it has already: so an append that ran into its limit is written once when the cluster is
back, and we learn where. But a batch that the broker refuses leaves a hole in the numbers that it counts with,
and then refuses everything behind: so after any refusal a new producer takes over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    ProducerClosed,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import RecordMetadata, TopicPartition

from gatepost.backends.log_kafka.connection import START_SECONDS, client_options
from gatepost.backends.log_kafka.health import Health
from gatepost.backends.log_kafka.stopping import close_client
from gatepost.backends.partitioning import partition_of
from gatepost.backends.pending import Deadlines, Outcome, Pending, all_of
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.ports.log import Entry, LogError, LogMisconfigured, LogUnavailable, LogUnknown, Position

# A batch of one piece of a body (900 KB and headers) must fit; Kafka's message.max.bytes is 1,048,588.
MAX_REQUEST: Final = 1_048_576
# aiokafka's default of 16 KiB allows 1,300 records/s at 200 senders where this allows 22,000.
MAX_BATCH: Final = 1_048_576
# A record waits so long for others to share its batch, its request and the broker's work. With 20 clients at once
# that saves a fifth of the CPU of both sides; one client alone waits less than for any disk.
LINGER_MS: Final = 3
# Records without a key stay with one partition for so long: fewer and larger batches.
STICK_SECONDS: Final = 0.005
CLOSE_SECONDS: Final = 3.0
_RESTART_SECONDS: Final = 1.0

# Refusals after which it is certain that nothing of the batch was written.
_REFUSALS: Final = (
    InvalidTopicError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

_log = structlog.get_logger(__name__)


class _Flight(Pending):
    """An append that the producer has taken."""

    __slots__ = ("_begun", "_owner", "_partition", "_topic")

    def __init__(self, owner: Producer, topic: str, partition: int) -> None:
        super().__init__(owner.loop)
        self._owner = owner
        self._topic = topic
        self._partition = partition
        self._begun = owner.loop.time()

    def expire(self) -> None:
        """The limit has passed: the caller gets LogUnknown, and what comes later goes to its outcome."""
        if self.waiter.done():
            return
        self._owner.health.doubted(self._topic, self._partition, self._begun)
        super().expire()
        self._owner.look_after_tasks()

    def landed(self, future: asyncio.Future[RecordMetadata], place: int = 0) -> None:
        """The producer has come to an end with it, or with its batch, in which it has this place."""
        if self.outcome is not None:
            if self.outcome.future.done():
                return
            self._owner.health.settled(self._topic, self._partition)
        if future.cancelled():
            self.fail(never_known("the append was lost", self._owner.loop))
            return
        error = future.exception()
        if error is not None:
            self.fail(self._owner.failed(error))
            return
        metadata = future.result()
        if metadata.offset < 0:
            # The broker knows that it has the batch already, but no longer where.
            self.fail(never_known("the record is written, but not known where", self._owner.loop))
            return
        self._owner.health.succeeded()
        self.resolve(Position(metadata.partition, metadata.offset + place))


class Producer:
    """Appends to any topic. `health` decides whether anything is tried at all."""

    def __init__(self, settings: KafkaSettings, client_id: str, health: Health) -> None:
        self._settings = settings
        self._client_id = client_id
        self.health = health
        self.loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self.loop)
        self._producer: AIOKafkaProducer | None = None
        self._replacing: asyncio.Task[None] | None = None
        self._retired: set[asyncio.Task[None]] = set()
        self._stuck_to: dict[str, tuple[int, float]] = {}
        self._aboard: dict[Any, list[tuple[_Flight, int]]] = {}
        self._closed = False

    async def start(self) -> None:
        """Raises LogUnavailable."""
        self._producer = await self._new()

    async def close(self) -> None:
        """Wait at most CLOSE_SECONDS for what is in flight, then let go of it."""
        self._closed = True
        if self._replacing is not None:
            self._replacing.cancel()
            with suppress(asyncio.CancelledError, LogError):
                await self._replacing
        producer, self._producer = self._producer, None
        if producer is not None:
            await _stop(producer, CLOSE_SECONDS)
        for task in list(self._retired):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    # -- appending

    async def append(self, entry: Entry, limit: float) -> Position:
        flight = await self._send(entry, limit)
        self._deadlines.add(flight, limit)
        return await flight.waiter

    async def append_many(self, entries: Sequence[Entry], limit: float) -> Sequence[Position]:
        deadline = self.loop.time() + limit
        flights: list[_Flight] = []
        try:
            for entry in entries:
                flights.append(await self._send(entry, max(deadline - self.loop.time(), 0)))
        except BaseException as error:
            for flight in flights:
                flight.abandon()
            if flights and isinstance(error, LogError):
                reason = f"{len(flights)} of {len(entries)} entries may be written, the others are not: {error}"
                raise never_known(reason, self.loop) from error
            raise
        for flight in flights:
            self._deadlines.add(flight, max(deadline - self.loop.time(), 0))
        return await all_of(flights)

    async def _send(self, entry: Entry, limit: float) -> _Flight:
        """Hand an entry to the producer; nothing is written unless this returns. Raises LogUnavailable."""
        if not self.health.available:
            raise LogUnavailable("kafka does not answer")
        try:
            producer = self._producer
            partition = None if producer is None else self._choose(producer, entry)
            if producer is None or partition is None:
                async with asyncio.timeout(limit):
                    producer = await self._next_producer()
                    partition = await self._look_up(producer, entry)
            flight = self._join(producer, entry, partition)
            if flight is None:
                async with asyncio.timeout(limit):
                    late = await producer.send(
                        entry.topic, entry.value, entry.key, partition, None, list(entry.headers)
                    )
                flight = _Flight(self, entry.topic, partition)
                late.add_done_callback(flight.landed)
        except TimeoutError:
            raise LogUnavailable(f"{entry.topic} could not be written to within {limit:g} s") from None
        except (KafkaError, AssertionError) as error:
            raise LogUnavailable(f"{entry.topic} cannot be written to: {error!r}") from error
        return flight

    def _join(self, producer: AIOKafkaProducer, entry: Entry, partition: int) -> _Flight | None:
        """Add an entry to the batch that its partition's next request takes, as nearly always can be done at once.

        None: aiokafka's send() must see to it, which waits where the batch is full and refuses what is too large.
        It does the same as this, in a dozen calls and with a future, a callback and a result for each record.
        """
        accumulator = producer._message_accumulator
        if accumulator._closed or accumulator._exception is not None:
            return None
        headers = list(entry.headers)
        if DefaultRecordBatchBuilder.estimate_size_in_bytes(entry.key, entry.value, headers) > MAX_REQUEST:
            return None
        place = TopicPartition(entry.topic, partition)
        waiting = accumulator._batches.get(place)
        batch = waiting[-1] if waiting else accumulator._append_batch(accumulator.create_builder(), place)
        added = batch._builder.append(timestamp=None, key=entry.key, value=entry.value, headers=headers)
        if added is None:
            return None
        flight = _Flight(self, entry.topic, partition)
        aboard = self._aboard.get(batch)
        if aboard is None:
            aboard = self._aboard[batch] = []
            batch.future.add_done_callback(partial(self._land, batch))
        aboard.append((flight, added.offset))
        return flight

    def _land(self, batch: Any, future: asyncio.Future[RecordMetadata]) -> None:
        """The producer has come to an end with a batch."""
        for flight, place in self._aboard.pop(batch):
            flight.landed(future, place)

    def _choose(self, producer: AIOKafkaProducer, entry: Entry) -> int | None:
        """Return the partition, or None while the topic is not known."""
        known: dict[int, Any] | None = producer._metadata._partitions.get(entry.topic)
        if not known:
            return None
        count = len(known)
        if entry.partition is not None:
            partition = entry.partition
            if partition not in known:
                raise LogMisconfigured(
                    f"the topic {entry.topic} has {count} partitions, so no partition {partition}"
                )
        elif entry.key is not None:
            partition = partition_of(entry.key, count)
        else:
            return self._any_partition(entry.topic, known)
        if not self.health.usable(entry.topic, partition):
            raise LogUnavailable(f"{entry.topic}/{partition} does not take what was sent before")
        return partition

    def _any_partition(self, topic: str, known: dict[int, Any]) -> int:
        now = self.loop.time()
        partition, since = self._stuck_to.get(topic, (0, 0.0))
        if now - since < STICK_SECONDS and self.health.usable(topic, partition):
            return partition
        for step in range(1, len(known) + 1):
            candidate = (partition + step) % len(known)
            if self.health.usable(topic, candidate) and known[candidate].leader != -1:
                self._stuck_to[topic] = (candidate, now)
                return candidate
        raise LogUnavailable(f"no partition of {topic} takes what was sent before")

    async def _look_up(self, producer: AIOKafkaProducer, entry: Entry) -> int:
        """Wait until the topic is known (the caller has the limit)."""
        await producer.partitions_for(entry.topic)
        partition = self._choose(producer, entry)
        if partition is None:
            raise LogUnavailable(f"{entry.topic} cannot be written to: it was not found")
        return partition

    # -- replacing

    def failed(self, error: BaseException) -> LogError:
        """A batch was not written, or so it seems: see to a new producer; return what to raise."""
        self._renew(repr(error))
        if isinstance(error, _REFUSALS):
            return LogUnavailable(f"the broker refused the record: {error!r}")
        return never_known(f"the append broke: {error!r}", self.loop)

    def look_after_tasks(self) -> None:
        """Replace a producer that will never send again, since one of its own tasks has ended."""
        producer = self._producer
        if producer is None:
            return
        tasks = (producer._sender.sender_task, producer.client._sync_task)
        if any(task is None or task.done() for task in tasks):
            self._renew("a task of its own has ended")

    def _renew(self, reason: str) -> None:
        if self._replacing is None and not self._closed:
            _log.warning("the producer is replaced", reason=reason)
            self._replacing = asyncio.create_task(self._replace(), name="kafka producer")

    async def _replace(self) -> None:
        old, self._producer = self._producer, None
        if old is not None:
            retiring = asyncio.create_task(_stop(old, START_SECONDS), name="kafka producer stop")
            self._retired.add(retiring)
            retiring.add_done_callback(self._retired.discard)
        while True:
            try:
                self._producer = await self._new()
            except LogUnavailable:
                await asyncio.sleep(_RESTART_SECONDS)
            else:
                self._replacing = None
                return

    async def _next_producer(self) -> AIOKafkaProducer:
        """Wait for the producer that is being started (the caller has the limit)."""
        if self._producer is None and self._replacing is not None:
            await asyncio.shield(self._replacing)
        if self._producer is None:
            raise LogUnavailable("the log is not connected")
        return self._producer

    async def _new(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **client_options(self._settings, self._client_id),
            acks="all",
            enable_idempotence=True,
            max_batch_size=MAX_BATCH,
            max_request_size=MAX_REQUEST,
            linger_ms=LINGER_MS,
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                await producer.start()
        except (TimeoutError, KafkaError, OSError) as error:
            await _stop(producer, 0)
            raise LogUnavailable(f"no producer could be started: {error!r}") from error
        except BaseException:
            await _stop(producer, 0)
            raise
        return producer


def never_known(reason: str, loop: asyncio.AbstractEventLoop) -> LogUnknown:
    """Return a LogUnknown whose outcome will never be known."""
    outcome = Outcome(loop)
    error = LogUnknown(reason, outcome)
    outcome.future.set_exception(LogUnknown(reason, outcome))
    return error


async def _stop(producer: AIOKafkaProducer, limit: float) -> None:
    """Stop a producer after at most `limit` seconds of waiting for what is in flight: stop() alone may hang."""
    try:
        with suppress(TimeoutError, KafkaError, OSError):
            async with asyncio.timeout(limit):
                await producer.stop()
    finally:
        await _drop(producer)


async def _drop(producer: AIOKafkaProducer) -> None:
    """End what stop() has left."""
    producer._closed = True
    sender, client = producer._sender, producer.client
    await close_client(client)
    if client._md_update_fut is not None and not client._md_update_fut.done():
        # Batches that were about to be sent again wait for this, and nobody is left to set it.
        client._md_update_fut.cancel()
    if sender.sender_task is not None and not sender.sender_task.done():
        sender.sender_task.cancel()
        await asyncio.wait([sender.sender_task], timeout=1)
        await close_client(client)  # a request that was to be sent again may have made a connection for it
    producer._message_accumulator.fail_all(ProducerClosed())
