"""A follower of a log within one process: every record of a topic, from its start or from a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gatepost.backends.log_local.storage import FETCH_RECORDS, Readable
from gatepost.backends.log_local.waiting import WakeUp
from gatepost.core.ports.log import LogUnavailable, Record


class LocalFollower:
    """Implements the Follower port over a Readable."""

    def __init__(self, storage: Readable, topic: str, since_ms: int | None) -> None:
        self._storage = storage
        self._topic = topic
        self._since_ms = since_ms
        self._positions: dict[int, int] = {}
        self._goals: dict[int, int] = {}
        self._wake = WakeUp()
        self._started = False

    async def start(self) -> None:
        spec = self._storage.topic(self._topic)
        self._goals = {p: self._storage.end_of(self._topic, p) for p in range(spec.partitions)}
        for partition in range(spec.partitions):
            if self._since_ms is None:
                self._positions[partition] = self._storage.start_of(self._topic, partition)
            else:
                self._positions[partition] = await self._storage.first_since(self._topic, partition, self._since_ms)
        self._storage.watch(self._topic, self._wake.set)
        self._started = True

    async def fetch(self, limit: float) -> Sequence[Record]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        while True:
            records = await self._collect()
            remaining = deadline - loop.time()
            if records or remaining <= 0:
                return records
            await self._wake.wait(remaining)

    async def _collect(self) -> Sequence[Record]:
        if not self._storage.available:
            return ()
        for partition, position in self._positions.items():
            end = self._storage.end_of(self._topic, partition)
            if position >= end:
                continue
            try:
                records = self._storage.recent(self._topic, partition, position, FETCH_RECORDS)
                if records is None:
                    records = await self._storage.stored(self._topic, partition, position, FETCH_RECORDS)
            except LogUnavailable:
                return ()
            # Nothing there although the end is further on: the rest was compacted or has expired.
            self._positions[partition] = records[-1].offset + 1 if records else end
            if records:
                return records
        return ()

    @property
    def caught_up(self) -> bool:
        return self._started and all(self._positions[p] >= goal for p, goal in self._goals.items())

    async def close(self) -> None:
        if self._started:
            self._storage.unwatch(self._topic, self._wake.set)
            self._started = False
