"""Appending: one idempotent producer for all topics, with limits, and a new one where the old one is spoilt.

docs/adr/0002-kafka-producer-idempotence.md has the reasons. An idempotent producer retries a batch for ever and
the broker drops what it has already: so an append that ran into its limit is written once when the cluster is
back, and we learn where. After an error that is no plain refusal nobody knows what its numbers are worth, so a new
producer takes over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import structlog
from aiokafka.structs import PartitionMetadata
from confluent_kafka import KafkaError, KafkaException, Message

from gatepost.backends.log_kafka.connection import START_SECONDS, Connection
from gatepost.backends.log_kafka.health import Health
from gatepost.backends.log_kafka.sending import Sending
from gatepost.backends.partitioning import partition_of
from gatepost.backends.pending import Deadlines, Outcome, Pending, all_of
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.ports.log import Entry, LogError, LogMisconfigured, LogUnavailable, LogUnknown, Position

# Records without a key stay with one partition for so long: fewer and larger batches.
STICK_SECONDS: Final = 0.005
CLOSE_SECONDS: Final = 3.0
# A producer that is spoilt again so soon is not replaced yet: what spoils it lasts.
_RENEW_SECONDS: Final = 1.0

# Refusals after which it is certain that nothing of the batch was written.
_REFUSALS: Final = frozenset(
    {
        KafkaError.INVALID_RECORD,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.POLICY_VIOLATION,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
    }
)

# What a producer that is closed says of all that it still had.
_PURGED: Final = frozenset({KafkaError._PURGE_INFLIGHT, KafkaError._PURGE_QUEUE})

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
        self._owner.connection.refresh()
        super().expire()

    def landed(self, error: KafkaError | None, message: Message) -> None:
        """The producer has come to an end with it."""
        if self.outcome is not None:
            self._owner.health.settled(self._topic, self._partition)
        if error is not None:
            self.fail(self._owner.failed(error, self._topic))
            return
        offset = message.offset()
        if offset is None or offset < 0:
            # The broker knows that it has the record already, but no longer where.
            self.fail(never_known("the record is written, but not known where", self._owner.loop))
            return
        self._owner.health.succeeded()
        self.resolve(Position(self._partition, offset))


class Producer:
    """Appends to any topic. `health` decides whether anything is tried at all."""

    def __init__(self, settings: KafkaSettings, client_id: str, connection: Connection, health: Health) -> None:
        self._settings = settings
        self._client_id = client_id
        self.connection = connection
        self.health = health
        self.loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self.loop)
        self._sending: Sending | None = None
        self._renewed = 0.0
        self._retired: set[asyncio.Task[None]] = set()
        self._stuck_to: dict[str, tuple[int, float]] = {}

    def start(self) -> None:
        """Raises LogUnavailable."""
        self._sending = Sending(self._settings, self._client_id)

    async def close(self) -> None:
        """Wait at most CLOSE_SECONDS for what is in flight, then let go of it."""
        sending, self._sending = self._sending, None
        if sending is not None:
            await sending.close(CLOSE_SECONDS)
        for task in list(self._retired):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    # -- appending

    async def append(self, entry: Entry, limit: float) -> Position:
        flight = self._send(entry)
        if flight is None:
            flight = await self._send_later(entry, limit)
        self._deadlines.add(flight, limit)
        return await flight.waiter

    async def append_many(self, entries: Sequence[Entry], limit: float) -> Sequence[Position]:
        deadline = self.loop.time() + limit
        flights: list[_Flight] = []
        try:
            for entry in entries:
                flight = self._send(entry)
                if flight is None:
                    flight = await self._send_later(entry, max(deadline - self.loop.time(), 0))
                flights.append(flight)
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

    def _send(self, entry: Entry) -> _Flight | None:
        """Hand an entry to the producer; nothing is written unless this returns. None: its topic is not known yet.

        Raises LogUnavailable.
        """
        if not self.health.available:
            raise LogUnavailable("kafka does not answer")
        sending = self._sending
        if sending is None:
            raise LogUnavailable("the log is not connected")
        partition = self._choose(entry)
        if partition is None:
            return None
        flight = _Flight(self, entry.topic, partition)
        try:
            sending.send(entry, partition, flight.landed)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.fatal() or reason.code() == KafkaError._FATAL:
                self._renew(_told(reason))
            raise LogUnavailable(f"{entry.topic} cannot be written to: {_told(reason)}") from error
        return flight

    async def _send_later(self, entry: Entry, limit: float) -> _Flight:
        """As _send, once the topic is known."""
        await self.connection.find(entry.topic, limit)
        flight = self._send(entry)
        if flight is None:
            raise LogUnavailable(f"{entry.topic} cannot be written to: it was not found")
        return flight

    def _choose(self, entry: Entry) -> int | None:
        """Return the partition, or None while the topic is not known."""
        known = self.connection.known_partitions(entry.topic)
        if known is None:
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

    def _any_partition(self, topic: str, known: Mapping[int, PartitionMetadata]) -> int:
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

    # -- replacing

    def failed(self, error: KafkaError, topic: str) -> LogError:
        """A record was not written, or so it seems; return what to raise."""
        if error.code() in _REFUSALS:
            self.connection.refresh()
            return LogUnavailable(f"the broker refused the record for {topic}: {_told(error)}")
        if error.code() not in _PURGED:
            self.connection.refresh()
            self._renew(_told(error))
        return never_known(f"the append to {topic} broke: {_told(error)}", self.loop)

    def _renew(self, reason: str) -> None:
        """Have a new producer; the old one gets START_SECONDS to bring in what it still has."""
        old, now = self._sending, self.loop.time()
        if old is None or now - self._renewed < _RENEW_SECONDS:
            return
        self._renewed = now
        _log.warning("the producer is replaced", reason=reason)
        try:
            self._sending = Sending(self._settings, self._client_id)
        except LogUnavailable as error:
            _log.error("no new producer", reason=str(error))
            return
        retiring = self.loop.create_task(old.close(START_SECONDS), name="kafka producer stop")
        self._retired.add(retiring)
        retiring.add_done_callback(self._retired.discard)


def _told(error: KafkaError) -> str:
    return f"{error.name()} ({error.str()})"


def never_known(reason: str, loop: asyncio.AbstractEventLoop) -> LogUnknown:
    """Return a LogUnknown whose outcome will never be known."""
    outcome = Outcome(loop)
    error = LogUnknown(reason, outcome)
    outcome.future.set_exception(LogUnknown(reason, outcome))
    return error
