"""A consumer of a log within one process: window, out-of-order completion and hand-over in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import structlog

from gatepost.backends.log_local.groups import Group
from gatepost.backends.log_local.storage import FETCH_RECORDS, Storage
from gatepost.backends.log_local.waiting import WakeUp
from gatepost.core.completion import Commit, Completion
from gatepost.core.ports.log import LogError, LogGap, LogUnavailable, Record
from gatepost.telemetry.lasting import lasting

# What is lost of finished work by a crash, in seconds; it is repeated then.
COMMIT_INTERVAL: Final = 0.2

_log = structlog.get_logger(__name__)


class LocalConsumer:
    """Implements the Consumer port over a Storage. Its group must outlive it."""

    def __init__(
        self,
        storage: Storage,
        topic: str,
        group: str,
        window: int,
        groups: Callable[[], Group | None],
        new_group: Callable[[Mapping[int, Commit]], Group],
    ) -> None:
        """`groups` gives the group if it has members now; `new_group` makes it from what is committed."""
        if window < 1:
            raise ValueError("window must be at least 1")
        self._storage = storage
        self._topic = topic
        self._group_name = group
        self._window = window
        self._groups = groups
        self._new_group = new_group
        self._group: Group | None = None
        self._owned: dict[int, Completion] = {}
        self._committed: dict[int, int] = {}
        self._turn = 0
        self._wake = WakeUp()
        self._collecting = asyncio.Lock()
        self._revoked: list[Callable[[frozenset[int]], None]] = []
        self._committer: asyncio.Task[None] | None = None
        # Partitions whose next record is gone, and what to say of each.
        self._gaps: dict[int, str] = {}
        self._gap_told = False

    async def start(self) -> None:
        self._storage.topic(self._topic)
        if self._group is not None:
            return
        group = self._groups()
        if group is None:
            commits = await self._storage.load_commits(self._topic, self._group_name)
            group = self._groups() or self._new_group(commits)
        self._group = group
        self._storage.watch(self._topic, self._wake.set)
        group.join(self)
        self._committer = lasting(f"commit {self._group_name}", self._commit_regularly)

    async def close(self) -> None:
        if self._group is None:
            return
        if self._committer is not None:
            self._committer.cancel()
            with suppress(asyncio.CancelledError):
                await self._committer
        with suppress(LogError):
            await self.commit()
        self._storage.unwatch(self._topic, self._wake.set)
        group, self._group = self._group, None
        group.leave(self)
        self._wake.set()

    # -- reading

    async def fetch(self, limit: float) -> Sequence[Record]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        while True:
            async with self._collecting:
                records = await self._collect()
            remaining = deadline - loop.time()
            if records:
                return records
            self._tell_gap(last=remaining <= 0)
            if remaining <= 0:
                return records
            await self._wake.wait(remaining)

    async def _collect(self) -> Sequence[Record]:
        """Take what can be given now of all partitions, beginning with another one each time."""
        given: list[Record] = []
        if not self._storage.available:
            return given
        partitions = list(self._owned)
        self._turn += 1
        for index in range(len(partitions)):
            partition = partitions[(index + self._turn) % len(partitions)]
            completion = self._owned.get(partition)
            if completion is None:
                continue
            given += await self._take(partition, completion, FETCH_RECORDS - len(given))
            if len(given) >= FETCH_RECORDS:
                break
        return given

    async def _take(self, partition: int, completion: Completion, most: int) -> Sequence[Record]:
        most = min(most, self._window - completion.outstanding)
        if most <= 0 or completion.next >= self._storage.end_of(self._topic, partition):
            return ()
        start = self._storage.start_of(self._topic, partition)
        if completion.next < start:
            self._gap(partition, completion.next, start)
            return ()
        records = self._storage.recent(self._topic, partition, completion.next, most)
        if records is None:
            try:
                records = await self._storage.stored(self._topic, partition, completion.next, most)
            except LogUnavailable:
                return ()
            if self._owned.get(partition) is not completion:
                return ()
        return [record for record in records if completion.take(record.offset)]

    def _gap(self, partition: int, offset: int, start: int) -> None:
        if partition not in self._gaps:
            self._gap_told = False
            self._gaps[partition] = (
                f"{self._topic}/{partition}: group {self._group_name} is at offset {offset}, "
                f"but the records below {start} were removed"
            )
            _log.error("records were removed before they were read", reason=self._gaps[partition])

    def _tell_gap(self, *, last: bool) -> None:
        """Raise LogGap: at once for a new one, for an old one when there was nothing else to give."""
        if self._gaps and (last or not self._gap_told):
            self._gap_told = True
            raise LogGap("; ".join(self._gaps.values()))

    # -- finishing

    def finish(self, record: Record) -> None:
        completion = self._owned.get(record.partition)
        if completion is None:
            return
        full = completion.outstanding >= self._window
        if completion.finish(record.offset) and full:
            self._wake.set()

    def owns(self, partition: int) -> bool:
        return partition in self._owned

    async def commit(self) -> None:
        changed = {
            partition: completion.changes
            for partition, completion in self._owned.items()
            if self._committed.get(partition) != completion.changes
        }
        if changed:
            commits = {partition: self._owned[partition].commit() for partition in changed}
            await self._storage.save_commits(self._topic, self._group_name, commits)
            for partition, changes in changed.items():
                if partition in self._owned:
                    self._committed[partition] = changes

    async def _commit_regularly(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_INTERVAL)
            try:
                await self.commit()
            except LogError as error:
                _log.warning("commit failed", topic=self._topic, group=self._group_name, reason=str(error))

    # -- membership (called by the group)

    @property
    def partitions(self) -> frozenset[int]:
        return frozenset(self._owned)

    def gain(self, commits: Mapping[int, Commit]) -> None:
        for partition, commit in commits.items():
            self._owned[partition] = Completion(commit)
        self._wake.set()

    def lose(self, partitions: frozenset[int]) -> Mapping[int, Commit]:
        lost = {partition: self._owned.pop(partition).commit() for partition in partitions}
        for partition in partitions:
            self._committed.pop(partition, None)
            self._gaps.pop(partition, None)
        if self._group is not None and partitions:
            for callback in self._revoked:
                callback(partitions)
        return lost

    def on_revoked(self, callback: Callable[[frozenset[int]], None]) -> None:
        self._revoked.append(callback)
