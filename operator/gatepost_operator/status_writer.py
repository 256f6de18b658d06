"""Writes statuses: a few at once, each object's failures by itself, so that none blocks another.

What is to be written is replaced as a whole by each turn of the controller. A write that fails is not repeated
here: the next turn finds the difference still there, and offers it again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from gatepost.core.manifest.object import ObjectKey
from gatepost.telemetry import metrics
from gatepost_operator.cluster import Cluster, ClusterError, ClusterUnavailable, Document

AT_ONCE: Final = 8  # gentle to the API server, and still 5,000 objects in well under a minute
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0

_log = structlog.get_logger()


class StatusWriter:
    """`on_written` is called with each object as the API server has it now."""

    def __init__(
        self, cluster: Cluster, on_written: Callable[[Document], None], monotonic: Callable[[], float]
    ) -> None:
        self._cluster, self._on_written, self._monotonic = cluster, on_written, monotonic
        self._waiting: dict[ObjectKey, Document] = {}
        self._in_hand: set[ObjectKey] = set()
        self._pauses: dict[ObjectKey, tuple[float, float]] = {}  # until when, and how long it was
        self._away_until = float("-inf")
        self._wake = asyncio.Event()

    def offer(self, statuses: Mapping[ObjectKey, Document]) -> None:
        """Make these all that is to be written."""
        self._waiting = dict(statuses)
        self._pauses = {key: pause for key, pause in self._pauses.items() if key in statuses}
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = self._next()
            if key is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            status = self._waiting.pop(key)
            self._in_hand.add(key)
            try:
                await self._write(key, status)
            finally:
                self._in_hand.discard(key)

    def _next(self) -> ObjectKey | None:
        now = self._monotonic()
        if now < self._away_until:
            return None
        for key in self._waiting:
            if key not in self._in_hand and self._pauses.get(key, (now, 0.0))[0] <= now:
                return key
        return None

    async def _write(self, key: ObjectKey, status: Document) -> None:
        try:
            written = await self._cluster.apply_status(key.kind, key.namespace, key.name, status)
        except ClusterError as error:
            metrics.OPERATOR_STATUS_WRITES.add("failed")
            self._failed(key, error)
            return
        self._pauses.pop(key, None)
        if written is None:
            metrics.OPERATOR_STATUS_WRITES.add("gone")
            return
        metrics.OPERATOR_STATUS_WRITES.add("written")
        self._on_written(written)

    def _failed(self, key: ObjectKey, error: ClusterError) -> None:
        now = self._monotonic()
        last = self._pauses.get(key, (now, 0.0))[1]
        pause = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, last * 2))
        self._pauses[key] = (now + pause * random.uniform(0.5, 1.0), pause)
        if isinstance(error, ClusterUnavailable):
            self._away_until = now + FIRST_PAUSE_S * random.uniform(0.5, 1.0)
        _log.warning("status.failed", object=str(key), reason=str(error), pause_s=round(pause, 1))
