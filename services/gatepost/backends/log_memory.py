"""A log in memory, for tests: it behaves as the real ones do, and can be made to fail as they do.

Several MemoryLogs over one MemoryStorage stand for several processes on one log, one after the other.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from gatepost.backends.log_local.consumer import LocalConsumer
from gatepost.backends.log_local.follower import LocalFollower
from gatepost.backends.log_local.groups import Group
from gatepost.backends.partitioning import partition_of
from gatepost.backends.pending import Deadlines, Pending, all_of
from gatepost.core.completion import Commit
from gatepost.core.ports.log import (
    Cleanup,
    Entry,
    LogGap,
    LogMisconfigured,
    LogUnavailable,
    Position,
    Record,
    TopicSpec,
)


class _Partition:
    def __init__(self) -> None:
        self.start = 0
        self.end = 0
        self.records: list[Record] = []

    def index(self, offset: int) -> int:
        return bisect_left(self.records, offset, key=_offset)


class _Topic:
    def __init__(self, spec: TopicSpec) -> None:
        self.spec = spec
        self.partitions = [_Partition() for _ in range(spec.partitions)]
        self.next_partition = 0


class MemoryStorage:
    """What outlives a process: topics, records and commits."""

    def __init__(self) -> None:
        self.topics: dict[str, _Topic] = {}
        self.commits: dict[tuple[str, str], dict[int, Commit]] = {}
        self.instance = uuid.uuid4().hex


class _Held(Pending):
    __slots__ = ("entry",)

    def __init__(self, loop: asyncio.AbstractEventLoop, entry: Entry) -> None:
        super().__init__(loop)
        self.entry = entry


class MemoryLog:
    """Implements the Log port. `available`, `hold` and `lose_held` are for tests to make it fail."""

    def __init__(
        self, storage: MemoryStorage | None = None, *, clock: Callable[[], float] = time.time, warning: str = ""
    ) -> None:
        """`clock` gives seconds since 1970. A `warning` is what ensure_topics returns."""
        self.storage = storage or MemoryStorage()
        self._clock = clock
        self._warning = warning
        self._open = False
        self._away = False
        self._holding = False
        self._held: list[_Held] = []
        self._watchers: dict[str, list[Callable[[], None]]] = {}
        self._groups: dict[tuple[str, str], Group] = {}
        self._deadlines: Deadlines | None = None

    # -- for tests

    def go_away(self) -> None:
        """Be unreachable: appends are refused, readers get nothing."""
        self._away = True

    def come_back(self) -> None:
        self._away = False
        for watchers in self._watchers.values():
            for callback in list(watchers):
                callback()

    def hold(self) -> None:
        """From now on, appends are taken and neither written nor refused, until release() or lose_held()."""
        self._holding = True

    def release(self) -> None:
        """Write what is held, also what has expired meanwhile, and stop holding."""
        self._holding = False
        held, self._held = self._held, []
        for pending in held:
            pending.resolve(self._write(pending.entry))

    def lose_held(self) -> None:
        """Let what is held come to nothing, and stop holding."""
        self._holding = False
        held, self._held = self._held, []
        for pending in held:
            pending.fail(LogUnavailable("the append was lost"))

    def records(self, topic: str) -> Sequence[Record]:
        """Return all records of a topic that are there, partition by partition."""
        return [record for partition in self._topic(topic).partitions for record in partition.records]

    # -- the port

    async def start(self) -> None:
        if self._away:
            raise LogUnavailable("the log in memory is away")
        self._deadlines = Deadlines(asyncio.get_running_loop())
        self._open = True

    async def close(self) -> None:
        self._open = False

    @property
    def available(self) -> bool:
        return self._open and not self._away

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        self._check()
        wrong = []
        for spec in specs:
            topic = self.storage.topics.setdefault(spec.name, _Topic(spec))
            if topic.spec.cleanup is not spec.cleanup or topic.spec.partitions < spec.partitions:
                wrong.append(f"{spec.name}: is {topic.spec}, must be {spec}")
        if wrong:
            raise LogMisconfigured("; ".join(wrong))
        return [self._warning] if self._warning else []

    async def instance_id(self) -> str:
        return self.storage.instance

    async def append(self, entry: Entry, limit: float) -> Position:
        self._check()
        self._topic(entry.topic)
        if not self._holding:
            return self._write(entry)
        return await self._hold(entry, limit).waiter

    async def append_many(self, entries: Sequence[Entry], limit: float) -> Sequence[Position]:
        self._check()
        for entry in entries:
            self._topic(entry.topic)
        if not self._holding:
            return [self._write(entry) for entry in entries]
        return await all_of([self._hold(entry, limit) for entry in entries])

    async def read(self, topic: str, partition: int, offsets: Sequence[int], limit: float) -> Sequence[Record]:
        self._check()
        there = {record.offset: record for record in self._partition(topic, partition).records}
        missing = [offset for offset in offsets if offset not in there]
        if missing:
            raise LogGap(f"{topic}/{partition}: no record at offset {missing[0]}")
        return [there[offset] for offset in offsets]

    async def trim(self, topic: str, partition: int, before: int) -> None:
        self._check()
        there = self._partition(topic, partition)
        there.start = max(there.start, min(before, there.end))
        del there.records[: there.index(there.start)]

    async def committed(self, topic: str, group: str) -> dict[int, int]:
        self._check()
        commits = self.storage.commits.get((topic, group), {})
        return {partition: commit.position for partition, commit in commits.items()}

    async def commits(self, topic: str, group: str) -> Mapping[int, Commit]:
        return await self.load_commits(topic, group)

    async def ends(self, topic: str) -> Mapping[int, range]:
        self._check()
        return {p: range(there.start, there.end) for p, there in enumerate(self._topic(topic).partitions)}

    def consumer(self, topic: str, group: str, *, window: int) -> LocalConsumer:
        def current() -> Group | None:
            found = self._groups.get((topic, group))
            return None if found is None or found.empty else found

        def new(commits: Mapping[int, Commit]) -> Group:
            starts = {p: Commit(self.start_of(topic, p)) for p in range(self.topic(topic).partitions)}
            made = self._groups[topic, group] = Group({**starts, **commits})
            return made

        return LocalConsumer(self, topic, group, window, current, new)

    def follower(self, topic: str, *, since_ms: int | None = None) -> LocalFollower:
        return LocalFollower(self, topic, since_ms)

    # -- storage for the readers

    def topic(self, name: str) -> TopicSpec:
        self._check()
        return self._topic(name).spec

    def start_of(self, topic: str, partition: int) -> int:
        return self._partition(topic, partition).start

    def end_of(self, topic: str, partition: int) -> int:
        return self._partition(topic, partition).end

    def recent(self, topic: str, partition: int, offset: int, most: int) -> Sequence[Record] | None:
        there = self._partition(topic, partition)
        first = there.index(offset)
        return there.records[first : first + most]

    async def stored(self, topic: str, partition: int, offset: int, most: int) -> Sequence[Record]:
        return self.recent(topic, partition, offset, most) or ()

    async def first_since(self, topic: str, partition: int, since_ms: int) -> int:
        there = self._partition(topic, partition)
        return next((r.offset for r in there.records if r.timestamp_ms >= since_ms), there.end)

    def watch(self, topic: str, callback: Callable[[], None]) -> None:
        self._watchers.setdefault(topic, []).append(callback)

    def unwatch(self, topic: str, callback: Callable[[], None]) -> None:
        self._watchers[topic].remove(callback)

    async def load_commits(self, topic: str, group: str) -> Mapping[int, Commit]:
        self._check()
        return dict(self.storage.commits.get((topic, group), {}))

    async def save_commits(self, topic: str, group: str, commits: Mapping[int, Commit]) -> None:
        self._check()
        self.storage.commits.setdefault((topic, group), {}).update(commits)

    # -- inside

    def _check(self) -> None:
        if not self._open:
            raise LogUnavailable("the log in memory is not open")
        if self._away:
            raise LogUnavailable("the log in memory is away")

    def _topic(self, name: str) -> _Topic:
        topic = self.storage.topics.get(name)
        if topic is None:
            raise LogMisconfigured(f"there is no topic {name}")
        return topic

    def _partition(self, topic: str, partition: int) -> _Partition:
        partitions = self._topic(topic).partitions
        if not 0 <= partition < len(partitions):
            raise LogMisconfigured(f"{topic} has {len(partitions)} partitions, so no partition {partition}")
        return partitions[partition]

    def _hold(self, entry: Entry, limit: float) -> _Held:
        assert self._deadlines is not None
        pending = _Held(asyncio.get_running_loop(), entry)
        self._held.append(pending)
        self._deadlines.add(pending, limit)
        return pending

    def _write(self, entry: Entry) -> Position:
        topic = self._topic(entry.topic)
        number = self._choose(topic, entry)
        there = self._partition(entry.topic, number)
        record = Record(
            topic=entry.topic,
            partition=number,
            offset=there.end,
            timestamp_ms=int(self._clock() * 1000),
            key=entry.key,
            value=entry.value or b"",
            headers=entry.headers,
        )
        if topic.spec.cleanup in (Cleanup.COMPACT, Cleanup.COMPACT_EXPIRE):
            there.records = [other for other in there.records if other.key != entry.key]
        there.records.append(record)
        there.end += 1
        for callback in list(self._watchers.get(entry.topic, ())):
            callback()
        return Position(number, record.offset)

    @staticmethod
    def _choose(topic: _Topic, entry: Entry) -> int:
        if entry.partition is not None:
            return entry.partition
        if entry.key is not None:
            return partition_of(entry.key, topic.spec.partitions)
        topic.next_partition = (topic.next_partition + 1) % topic.spec.partitions
        return topic.next_partition


def _offset(record: Record) -> int:
    return record.offset
