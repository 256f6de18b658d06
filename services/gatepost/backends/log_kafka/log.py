"""The Log port on a Kafka cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition

from gatepost.backends.log_kafka import ends, positions, reading, rights, topics
from gatepost.backends.log_kafka.connection import Connection
from gatepost.backends.log_kafka.consumer import KafkaConsumer
from gatepost.backends.log_kafka.follower import KafkaFollower
from gatepost.backends.log_kafka.health import Health
from gatepost.backends.log_kafka.producer import Producer
from gatepost.backends.log_kafka.quiet import quieten
from gatepost.core.completion import Commit
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.ports.log import Entry, LogUnavailable, Position, Record, TopicSpec
from gatepost.core.rights import Right

# For questions about the cluster that have no limit of their own.
_ASK_SECONDS: Final = 10.0


class KafkaLog:
    """Implements the Log port. Consumers and followers keep connections of their own."""

    def __init__(self, settings: KafkaSettings, *, client_id: str) -> None:
        """`client_id` names this process in the brokers' logs and metrics, and in listings of groups."""
        self._settings = settings
        self._client_id = client_id
        self._connection = Connection(settings, client_id)
        self._health: Health | None = None
        self._producer: Producer | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        async with self._starting:
            if self._producer is not None:
                return
            quieten()
            await self._connection.start()
            health = Health(self._connection)
            producer = Producer(self._settings, self._client_id, self._connection, health)
            try:
                producer.start()
            except BaseException:
                await self._connection.close()
                raise
            health.start()
            self._health, self._producer = health, producer

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        health, self._health = self._health, None
        if producer is not None:
            await producer.close()
        if health is not None:
            await health.close()
        await self._connection.close()

    @property
    def available(self) -> bool:
        return self._health is not None and self._health.available

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        return await topics.ensure(self._connection, self._settings, specs)

    async def missing_rights(self, needed: Sequence[Right]) -> Sequence[Right]:
        """Return which of these rights the cluster does not give this principal. Raises LogUnavailable.

        Topics that are not there are passed over, and so is what a broker does not tell (before Kafka 2.8).
        """
        return await self._connection.call(
            "asking for rights", _ASK_SECONDS, lambda: rights.missing(self._connection, needed)
        )

    async def instance_id(self) -> str:
        cluster = await self._connection.call(
            "asking for the cluster", _ASK_SECONDS, lambda: self._connection.cluster([])
        )
        return cluster.id

    async def append(self, entry: Entry, limit: float) -> Position:
        return await self._open_producer().append(entry, limit)

    async def append_many(self, entries: Sequence[Entry], limit: float) -> Sequence[Position]:
        return await self._open_producer().append_many(entries, limit)

    async def read(self, topic: str, partition: int, offsets: Sequence[int], limit: float) -> Sequence[Record]:
        return await reading.read(self._connection, topic, partition, offsets, limit)

    async def trim(self, topic: str, partition: int, before: int) -> None:
        place = TopicPartition(topic, partition)
        await self._connection.call(
            f"trimming {topic}/{partition}",
            _ASK_SECONDS,
            lambda: self._connection.admin.delete_records({place: RecordsToDelete(before)}),
        )

    async def committed(self, topic: str, group: str) -> dict[int, int]:
        offsets = await self._connection.call(
            f"reading the commits of {group}",
            _ASK_SECONDS,
            lambda: self._connection.commits(group, None),
        )
        return {place.partition: found.offset for place, found in offsets.items() if place.topic == topic}

    async def commits(self, topic: str, group: str) -> Mapping[int, Commit]:
        found = await self._connection.call(
            f"reading the commits of {group}",
            _ASK_SECONDS,
            lambda: self._connection.commits(group, None),
        )
        return {
            place.partition: Commit(one.offset, one.metadata)
            for place, one in found.items()
            if place.topic == topic
        }

    async def ends(self, topic: str) -> Mapping[int, range]:
        numbers = await self._connection.partitions(topic, _ASK_SECONDS)
        return await self._connection.call(
            f"asking for the ends of {topic}", _ASK_SECONDS, lambda: ends.ends(self._connection, topic, numbers)
        )

    async def save_commits(self, topic: str, group: str, commits: Mapping[int, Commit]) -> None:
        await self._connection.call(
            f"setting the positions of {group}",
            _ASK_SECONDS,
            lambda: positions.save(self._connection, topic, group, commits),
        )

    async def first_since(self, topic: str, partition: int, since_ms: int) -> int:
        return await self._connection.call(
            f"asking {topic}/{partition} for a time",
            _ASK_SECONDS,
            lambda: ends.first_since(self._connection, topic, partition, since_ms),
        )

    def consumer(self, topic: str, group: str, *, window: int) -> KafkaConsumer:
        return KafkaConsumer(self._connection, self._settings, self._client_id, topic, group, window)

    def follower(self, topic: str, *, since_ms: int | None = None) -> KafkaFollower:
        return KafkaFollower(self._connection, self._settings, self._client_id, topic, since_ms)

    def _open_producer(self) -> Producer:
        if self._producer is None:
            raise LogUnavailable("the log is not connected")
        return self._producer
