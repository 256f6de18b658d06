"""Reading a whole topic on Kafka without a group."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from gatepost.backends.log_kafka.connection import Connection, client_options
from gatepost.backends.log_kafka.disbelief import BACKOFF_SECONDS, Disbelief
from gatepost.backends.log_kafka.facts import TopicWatch
from gatepost.backends.log_kafka.reading import to_record
from gatepost.backends.log_kafka.stopping import stop_consumer
from gatepost.backends.log_local.storage import FETCH_BYTES, FETCH_RECORDS
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.ports.log import LogGap, LogUnavailable, Record

START_SECONDS: Final = 15.0
CLOSE_SECONDS: Final = 2.0
WATCH_LIMIT: Final = 1.0
_RETRY_SECONDS: Final = 0.5
_PARTITION_BYTES: Final = 1024 * 1024

_log = structlog.get_logger(__name__)


class KafkaFollower:
    """Implements the Follower port. Partitions that are added to the topic later are not seen."""

    def __init__(
        self, connection: Connection, settings: KafkaSettings, client_id: str, topic: str, since_ms: int | None
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._client_id = client_id
        self._topic = topic
        self._since_ms = since_ms
        self._client: AIOKafkaConsumer | None = None
        self._goals: dict[TopicPartition, int] = {}
        self._watch = TopicWatch(connection, topic)
        self._disbelief = Disbelief(connection)

    async def start(self) -> None:
        if self._client is not None:
            return
        numbers = await self._connection.partitions(self._topic, START_SECONDS)
        await self._watch.is_another(START_SECONDS)
        client = AIOKafkaConsumer(
            **client_options(self._settings, self._client_id),
            group_id=None,
            auto_offset_reset="none",
            max_partition_fetch_bytes=_PARTITION_BYTES,
            fetch_max_bytes=FETCH_BYTES,
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                await client.start()
                await self._begin(client, [TopicPartition(self._topic, number) for number in numbers])
        except (TimeoutError, KafkaError, OSError) as error:
            await stop_consumer(client, 0)
            raise LogUnavailable(f"{self._topic} cannot be followed: {error!r}") from error
        except BaseException:
            await stop_consumer(client, 0)
            raise
        self._client = client

    async def _begin(self, client: AIOKafkaConsumer, places: list[TopicPartition]) -> None:
        client.assign(places)
        self._goals = await client.end_offsets(places)
        begins: dict[TopicPartition, int] = await client.beginning_offsets(places)
        if self._since_ms is not None:
            times: dict[TopicPartition, Any] = await client.offsets_for_times(dict.fromkeys(places, self._since_ms))
            # None where there is no such record yet: the end.
            begins = {
                place: self._goals[place] if found is None else found.offset for place, found in times.items()
            }
        for place in places:
            client.seek(place, begins[place])

    async def fetch(self, limit: float) -> Sequence[Record]:
        if self._client is None:
            raise LogUnavailable(f"{self._topic} is not followed")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        await self._check_topic()
        while True:
            remaining = max(deadline - loop.time(), 0)
            try:
                data = await self._client.getmany(timeout_ms=int(remaining * 1000), max_records=FETCH_RECORDS)
            except OffsetOutOfRangeError as error:
                for place, offset in error.args[0].items():
                    await self._out_of_range(self._client, place, offset, remaining)
                data = {}
            except KafkaError as error:
                _log.warning("following failed", topic=self._topic, reason=repr(error))
                await asyncio.sleep(min(_RETRY_SECONDS, remaining))
                data = {}
            for place in data:
                self._disbelief.found(place)
            records = [to_record(p.topic, p.partition, record) for p, found in data.items() for record in found]
            if records or remaining <= 0:
                return records

    async def _out_of_range(
        self, client: AIOKafkaConsumer, place: TopicPartition, offset: int, limit: float
    ) -> None:
        """What has expired or was compacted is not missed: read on where there is something."""
        try:
            held = await self._disbelief.gone(place, offset, max(limit, WATCH_LIMIT))
        except LogUnavailable as error:
            _log.warning("following failed", topic=self._topic, reason=str(error))
            await asyncio.sleep(min(_RETRY_SECONDS, limit))
            return
        if held is not None:
            _log.info("following from the start", topic=self._topic, partition=place.partition, begin=held.start)
            client.seek(place, held.start)
        else:
            client._client.force_metadata_update()
            await asyncio.sleep(min(BACKOFF_SECONDS, limit))

    async def _check_topic(self) -> None:
        """Raise LogGap when the topic is another one by now: what was read of the old one may be wrong."""
        with suppress(LogUnavailable):  # while the log is away a follower waits
            if await self._watch.is_another(WATCH_LIMIT):
                raise LogGap(f"{self._topic} was deleted and made anew: it must be read from its start again")

    @property
    def caught_up(self) -> bool:
        """Positions move when records are given, also over those that were compacted away."""
        if self._client is None:
            return False
        assignment = self._client._subscription.subscription.assignment
        for place, goal in self._goals.items():
            state = assignment.state_value(place)
            if not state.has_valid_position or state.position < goal:
                return False
        return True

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await stop_consumer(client, CLOSE_SECONDS)
