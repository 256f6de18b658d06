"""What the log held at a moment: which records of a work topic were finished, and which had outcomes already.

For tests that kill processes. A record that is not finished and has an outcome (a record further on, or a message
at a next hop) is what a kill makes somebody do again: the tight bound for copies that may come twice.
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition

from gatepost.backends.log_kafka.connection import Connection
from gatepost.backends.log_kafka.reading import to_record
from gatepost.backends.log_sqlite.file import connect, read_contents
from gatepost.backends.log_sqlite.view import SqliteLogView
from gatepost.core.completion import Commit, finished_ranges
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.ports.log import Record
from gatepost.core.records import read_item
from testbed.smtp_conversation import Transaction

ASK_SECONDS = 30.0
FETCH_MS = 200
# The kernel may hold a message that a dead process had sent completely: a next hop writes it down a bit later. A
# dead member's work is given to another one only after six seconds.
ARRIVAL_SLACK_MS = 1000

T = TypeVar("T")

Commits = Mapping[tuple[str, int], Commit]
"""(topic, partition) -> what the topic's one group has committed."""


class Step(NamedTuple):
    """One kind of work: the topic that it reads, and where its outcomes can be seen."""

    topic: str
    outcomes: frozenset[str]


class Trace(NamedTuple):
    """One record, or one message at a next hop (then `partition` is -1 and `topic` the next hop's name).

    `id` is the copy's, or the message's before there are copies.
    """

    topic: str
    partition: int
    offset: int
    ms: int
    address: str
    id: str = ""


class Kill(NamedTuple):
    """A kill at `ms` (since 1970), with the commits from just before, and the steps that the victims did."""

    ms: int
    commits: Commits
    steps: Sequence[Step]


class Arrivals(list[Transaction]):
    """A sink's transactions, with the time at which each was written down; replaces `sink.transactions`."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[int] = []

    def append(self, item: Transaction) -> None:
        self.times.append(now_ms())
        super().append(item)

    def traces(self, name: str) -> list[Trace]:
        """One for each recipient that was accepted."""
        return [
            Trace(name, -1, number, ms, address)
            for number, (ms, transaction) in enumerate(zip(self.times, list(self), strict=False))
            for address in transaction.accepted
        ]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def in_hand(kill: Kill, traces: Iterable[Trace]) -> set[str]:
    """The addresses of records that were not finished at a kill but had an outcome: what may come twice."""
    by_topic: dict[str, list[Trace]] = {}
    for trace in traces:
        by_topic.setdefault(trace.topic, []).append(trace)
    found: set[str] = set()
    for step in kill.steps:
        outcomes: dict[str, list[int]] = {}
        for name in step.outcomes:
            slack = 0 if by_topic.get(name, [Trace("", 0, 0, 0, "")])[0].partition >= 0 else ARRIVAL_SLACK_MS
            for trace in by_topic.get(name, ()):
                if trace.ms <= kill.ms + slack:
                    outcomes.setdefault(trace.address, []).append(trace.ms)
        for record in by_topic.get(step.topic, ()):
            open_then = record.ms <= kill.ms and not _finished(kill.commits, record)
            if open_then and any(ms >= record.ms for ms in outcomes.get(record.address, ())):
                found.add(record.address)
    return found


def _finished(commits: Commits, record: Trace) -> bool:
    commit = commits.get((record.topic, record.partition), Commit(0))
    if record.offset < commit.position:
        return True
    return any(record.offset in finished for finished in finished_ranges(commit))


class Witness(ABC):
    """Use as a context manager. `records` are those of the topics with groups, as far as they were read."""

    def __init__(self, groups: Mapping[str, str]) -> None:
        """`groups`: topic -> the group that works on it."""
        self._groups = dict(groups)
        self._seen: dict[tuple[str, int, int], tuple[Trace, ...]] = {}

    @abstractmethod
    def commits(self) -> Commits:
        """What is committed now."""

    @abstractmethod
    def ends(self) -> Mapping[tuple[str, int], int]:
        """The offset after the last record of each partition."""

    @property
    def records(self) -> list[Trace]:
        return [trace for traces in list(self._seen.values()) for trace in traces]

    def unfinished(self) -> dict[str, int]:
        """Topic -> records that are not finished, where there are any."""
        commits, found = self.commits(), dict[str, int]()
        for (topic, partition), end in self.ends().items():
            missing = end - commits.get((topic, partition), Commit(0)).position
            if missing > 0:
                found[topic] = found.get(topic, 0) + missing
        return found

    def written_twice(self) -> int:
        """Records with the id of another one in the topic: steps that were done again. Deferred copies aside."""
        deferred = {trace.id for trace in self.records if trace.topic.startswith("retry.")}
        counts = Counter((trace.topic, trace.id) for trace in self.records if trace.id not in deferred)
        return sum(count - 1 for count in counts.values())

    def _note(self, record: Record) -> None:
        """Write a record's final recipients down. Mail for many is not in these tests."""
        envelope = read_item(record).envelope
        place = record.topic, record.partition, record.offset
        self._seen[place] = tuple(
            Trace(*place, record.timestamp_ms, one.address, one.id or envelope.id) for one in envelope.recipients
        )


class KafkaWitness(Witness):
    """Reads along with clients of its own, in a thread."""

    def __init__(self, bootstrap: str, groups: Mapping[str, str]) -> None:
        super().__init__(groups)
        self._settings = KafkaSettings(bootstrap_servers=tuple(bootstrap.split(",")))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="witness", daemon=True)
        self._reading: asyncio.Task[None] | None = None

    def __enter__(self) -> KafkaWitness:
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, *error: object) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ASK_SECONDS)
        self._loop.close()

    def commits(self) -> Commits:
        return self._do(self._commits())

    def ends(self) -> Mapping[tuple[str, int], int]:
        return self._do(self._ends())

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(ASK_SECONDS)

    async def _start(self) -> None:
        self._connection = Connection(self._settings, "witness")
        await self._connection.start()
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=list(self._settings.bootstrap_servers),
            group_id=None,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await self._consumer.start()
        self._places = [
            TopicPartition(topic, partition)
            for topic in self._groups
            for partition in await self._connection.partitions(topic, ASK_SECONDS)
        ]
        self._consumer.assign(self._places)
        self._reading = asyncio.create_task(self._read())

    async def _stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        await self._consumer.stop()
        await self._connection.close()

    async def _read(self) -> None:
        while True:
            for place, records in (await self._consumer.getmany(timeout_ms=FETCH_MS)).items():
                for one in records:
                    self._note(to_record(place.topic, place.partition, one))

    async def _commits(self) -> Commits:
        found: dict[tuple[str, int], Commit] = {}
        for topic, group in self._groups.items():

            async def ask(group: str = group) -> dict[Any, Any]:
                return await self._connection.commits(group, None)

            for place, commit in (await self._connection.call(f"the commits of {group}", ASK_SECONDS, ask)).items():
                if place.topic == topic:
                    found[topic, place.partition] = Commit(commit.offset, commit.metadata)
        return found

    async def _ends(self) -> dict[tuple[str, int], int]:
        ends = await self._consumer.end_offsets(self._places)
        return {(place.topic, place.partition): end for place, end in ends.items()}


class FileWitness(Witness):
    """Looks into the embedded log's file, best while nobody writes it. Keeps what it read, as the log trims."""

    def __init__(self, path: Path, groups: Mapping[str, str]) -> None:
        super().__init__(groups)
        self._path = path

    def commits(self) -> Commits:
        """Notes the unfinished records as well."""
        connection = connect(self._path, read_only=True)
        try:
            rows = connection.execute("SELECT topic, partition, position, metadata FROM commits").fetchall()
        finally:
            connection.close()
        asyncio.run(self._read())
        return {(topic, partition): Commit(position, metadata) for topic, partition, position, metadata in rows}

    def ends(self) -> Mapping[tuple[str, int], int]:
        connection = connect(self._path, read_only=True)
        try:
            streams = read_contents(connection).streams
        finally:
            connection.close()
        return {(one.topic, one.partition): one.end for one in streams if one.topic in self._groups}

    async def _read(self) -> None:
        view = SqliteLogView(self._path)
        await view.start()
        try:
            for topic in self._groups:
                follower = view.follower(topic)
                await follower.start()
                while not follower.caught_up:
                    for record in await follower.fetch(0.1):
                        self._note(record)
                await follower.close()
        finally:
            await view.close()
