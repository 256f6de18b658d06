"""One membership in a Kafka group: aiokafka's client, its rebalances, and whether its own tasks still live."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from gatepost.backends.log_kafka.assignor import KeepingAssignor, Owned
from gatepost.backends.log_kafka.connection import client_options
from gatepost.backends.log_local.storage import FETCH_BYTES, FETCH_RECORDS
from gatepost.core.manifest.quantities import seconds
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.ports.log import LogUnavailable

LOAD_SECONDS: Final = 5.0
_HEARTBEAT_MS: Final = 2000
_NEVER_MS: Final = 2**31 - 1
# At least one record comes, however large; more than the window takes would only wait in memory.
_PARTITION_BYTES: Final = 1024 * 1024
_USUAL_RECORD_BYTES: Final = 8 * 1024

_log = structlog.get_logger(__name__)


class Owner(Protocol):
    """Whose member it is: what the group decides is told to it."""

    window: int

    async def before_rebalance(self, member: Member) -> None: ...

    def after_rebalance(self, member: Member, assigned: frozenset[int], *, kept: bool) -> None: ...


class Member(ConsumerRebalanceListener):  # type: ignore[misc]
    """One membership: from joining until the client is stopped."""

    def __init__(self, owner: Owner, settings: KafkaSettings, client_id: str, topic: str, group: str) -> None:
        self._owner = owner
        self._topic = topic
        self._assignor = KeepingAssignor(topic)
        self._generation = -1
        self._id = ""
        self.rebalancing = True
        self.rebalancing_since = asyncio.get_running_loop().time()
        session_ms = int(seconds(settings.session_timeout) * 1000)
        self.client = AIOKafkaConsumer(
            **client_options(settings, client_id),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=min(_HEARTBEAT_MS, session_ms // 3),
            max_poll_interval_ms=_NEVER_MS,
            max_partition_fetch_bytes=min(_PARTITION_BYTES, owner.window * _USUAL_RECORD_BYTES),
            fetch_max_bytes=FETCH_BYTES,
            partition_assignment_strategy=(self._assignor,),
        )
        self.client.subscribe([topic], listener=self)

    # -- called by aiokafka, in its own task

    async def on_partitions_revoked(self, revoked: object) -> None:
        if not self.rebalancing:
            self.rebalancing_since = asyncio.get_running_loop().time()
        self.rebalancing = True
        await self._owner.before_rebalance(self)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        partitions = frozenset(place.partition for place in assigned)
        coordinator = self.client._coordinator
        same = coordinator.member_id == self._id and coordinator.generation == self._generation + 1
        self._id, self._generation = coordinator.member_id, coordinator.generation
        self._assignor.owned = Owned(self._generation, tuple(sorted(partitions)))
        self.rebalancing = False
        self._owner.after_rebalance(self, partitions, kept=same)

    # -- for the consumer

    @property
    def broken(self) -> bool:
        """Whether one of the client's own tasks has ended: it never should."""
        coordinator, fetcher, client = self.client._coordinator, self.client._fetcher, self.client._client
        tasks = (coordinator._coordination_task, fetcher._fetch_task, client._sync_task)
        return any(task is None or task.done() for task in tasks)

    def show_errors(self) -> None:
        """Take note of an error of the group: the client does nothing more until somebody has."""
        try:
            self.client._coordinator.check_errors()
        except KafkaError as error:
            _log.warning("group trouble", topic=self._topic, reason=repr(error))

    def look_again(self) -> None:
        """Have the client ask for the topic's partitions now: it may have learned that there are none."""
        self.client._client.force_metadata_update()

    async def read(self, places: Sequence[TopicPartition], limit: float) -> dict[TopicPartition, list[Any]]:
        found: dict[TopicPartition, list[Any]] = await self.client.getmany(
            *places, timeout_ms=int(limit * 1000), max_records=FETCH_RECORDS
        )
        return found

    async def starts(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offsets of the first records. Raises LogUnavailable."""
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                found: dict[TopicPartition, int] = await self.client.beginning_offsets(places)
                return found
        except (TimeoutError, KafkaError) as error:
            raise LogUnavailable(f"{self._topic}: its first offsets are not known: {error!r}") from error

    def seek(self, place: TopicPartition, offset: int) -> None:
        """Have the client read on from here."""
        self.client.seek(place, offset)
