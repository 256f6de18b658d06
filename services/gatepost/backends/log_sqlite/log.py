"""The Log port on one SQLite file: the event loop's side of it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import structlog

from gatepost.backends.log_local.consumer import LocalConsumer
from gatepost.backends.log_local.follower import LocalFollower
from gatepost.backends.log_local.groups import Group
from gatepost.backends.log_sqlite import upkeep
from gatepost.backends.log_sqlite.file import Contents, Lock, damaged, open_for_writing, read_contents
from gatepost.backends.log_sqlite.reader import Reader
from gatepost.backends.log_sqlite.stream import Stream, Tails
from gatepost.backends.log_sqlite.topics import reconcile
from gatepost.backends.log_sqlite.writer import Append, SaveCommits, Writer, Written
from gatepost.backends.partitioning import partition_of
from gatepost.backends.pending import Deadlines, Outcome, all_of
from gatepost.core.completion import Commit
from gatepost.core.ports.log import (
    Entry,
    LogError,
    LogMisconfigured,
    LogUnavailable,
    LogUnknown,
    Position,
    Record,
    TopicSpec,
)
from gatepost.telemetry.lasting import lasting

# The newest records kept in memory, in bytes of their values.
TAIL_BYTES: Final = 32 * 1024 * 1024
# A batch usually takes milliseconds, with a checkpoint up to some hundred; then the disk hangs.
STUCK_SECONDS: Final = 3.0
# A consumer's read has no limit of its own.
READ_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 5.0
UPKEEP_SECONDS: Final = 1.0
_EXPIRY_SECONDS: Final = 60.0

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class SqliteLog:
    """Implements the Log port, for one process: a second one gets LogUnavailable from start().

    `available` is False when the last write failed (a full disk) or one has been going on for STUCK_SECONDS.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """`path` is the file, made when missing, with two of SQLite's and a lock beside it.

        `clock` gives seconds since 1970.
        """
        self._path = path
        self._clock = clock
        self._lock: Lock | None = None
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._failed = False
        self._instance = ""
        self._topics: dict[str, TopicSpec] = {}
        self._streams: dict[str, list[Stream]] = {}
        self._commits: dict[tuple[str, str], dict[int, Commit]] = {}
        self._tails = Tails(TAIL_BYTES)
        self._turns: dict[str, int] = {}
        self._watchers: dict[str, list[Callable[[], None]]] = {}
        self._groups: dict[tuple[str, str], Group] = {}
        self._upkeep: asyncio.Task[None] | None = None

    # -- opening and closing

    async def start(self) -> None:
        if self._writer is not None:
            return
        loop = asyncio.get_running_loop()
        lock = Lock(self._path)
        try:
            connection, contents, commits = await loop.run_in_executor(None, self._open)
            self._reader = Reader(self._path)
        except BaseException:
            # Not kept: close() would release it again, and hide why the start failed.
            lock.release()
            raise
        self._lock = lock
        self._instance = contents.instance
        self._topics = contents.topics
        self._streams = {}
        for stream in contents.streams:
            self._streams.setdefault(stream.topic, []).append(stream)
        self._commits = commits
        self._groups = {}
        self._tails = Tails(TAIL_BYTES)
        self._deadlines = Deadlines(loop)
        ends = {stream.number: stream.end for stream in contents.streams}
        self._writer = Writer(connection, ends, loop, self._clock, self._on_written)
        self._failed = False
        self._upkeep = lasting("log upkeep", self._keep_up)

    def _open(self) -> tuple[sqlite3.Connection, Contents, dict[tuple[str, str], dict[int, Commit]]]:
        connection = open_for_writing(self._path)
        try:
            contents = read_contents(connection)
            commits: dict[tuple[str, str], dict[int, Commit]] = {}
            for topic, group, partition, position, metadata in connection.execute("SELECT * FROM commits"):
                commits.setdefault((topic, group), {})[partition] = Commit(position, metadata)
        except sqlite3.Error as error:
            connection.close()
            raise damaged(self._path, error) from error
        return connection, contents, commits

    async def close(self) -> None:
        if self._upkeep is not None:
            self._upkeep.cancel()
            with suppress(asyncio.CancelledError):
                await self._upkeep
            self._upkeep = None
        if self._reader is not None:
            # Before the writer, whose connection then is the last one and tidies up the file.
            self._reader.close()
            self._reader = None
        writer, self._writer = self._writer, None
        if writer is not None:
            ended = await asyncio.get_running_loop().run_in_executor(None, writer.stop, CLOSE_SECONDS)
            if not ended:
                _log.error("the log's disk hangs; closing without it", file=str(self._path))
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def available(self) -> bool:
        return self._writer is not None and not self._failed and self._writer.busy_for < STUCK_SECONDS

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        """Create what is missing, and add partitions where that is harmless.

        Raises LogMisconfigured for a topic with another cleanup, or a compacted one with fewer partitions.
        """
        streams = await self._call(lambda connection: reconcile(connection, specs, self._topics))
        self._topics.update((spec.name, spec) for spec in streams.topics)
        for stream in streams.added:
            self._streams.setdefault(stream.topic, []).append(stream)
        return ()

    async def instance_id(self) -> str:
        if self._writer is None:
            raise self._closed()
        return self._instance

    # -- appending

    async def append(self, entry: Entry, limit: float) -> Position:
        writer = self._open_writer()
        append = Append(writer, self._stream_for(entry), entry)
        self._deadlines.add(append, limit)
        writer.append((append,))
        return await append.waiter

    async def append_many(self, entries: Sequence[Entry], limit: float) -> Sequence[Position]:
        """As the port says; here all are written or none, unless only some expire before they are begun."""
        writer = self._open_writer()
        appends = [Append(writer, self._stream_for(entry), entry) for entry in entries]
        for append in appends:
            self._deadlines.add(append, limit)
        writer.append(appends)
        return await all_of(appends)

    def _stream_for(self, entry: Entry) -> Stream:
        if entry.partition is not None:
            return self._stream(entry.topic, entry.partition)
        streams = self._streams_of(entry.topic)
        if entry.key is not None:
            return streams[partition_of(entry.key, len(streams))]
        turn = self._turns[entry.topic] = self._turns.get(entry.topic, -1) + 1
        return streams[turn % len(streams)]

    def _on_written(self, written: Written) -> None:
        """A batch has ended: tell those who wait for it, then those who read."""
        if written.error is not None:
            self._on_failed(written)
            return
        self._failed = False
        topics = set()
        for append in written.appends:
            stream, entry, offset = append.stream, append.entry, append.offset
            if self._watchers.get(stream.topic):
                record = Record(
                    topic=stream.topic,
                    partition=stream.partition,
                    offset=offset,
                    timestamp_ms=written.at_ms,
                    key=entry.key,
                    value=entry.value or b"",
                    headers=entry.headers,
                )
                self._tails.keep(stream, record)
                topics.add(stream.topic)
            else:
                self._tails.skip(stream, offset)
            stream.end = offset + 1
            append.resolve(Position(stream.partition, offset))
        for topic in topics:
            self._wake(topic)

    def _on_failed(self, written: Written) -> None:
        self._failed = True
        assert written.error is not None
        _log.error("the log cannot be written", file=str(self._path), reason=str(written.error))
        reason = f"the log {self._path} cannot be written: {written.error}"
        # A failed sync may have written the end of the transaction: then it is there after a restart.
        uncertain = written.error.sqlite_errorname.startswith("SQLITE_IOERR")
        for append in written.appends:
            if uncertain:
                outcome = Outcome(append.waiter.get_loop())
                outcome.future.set_exception(LogUnknown(reason, outcome))
                append.fail(LogUnknown(reason, outcome))
            else:
                append.fail(LogUnavailable(reason))

    # -- reading

    async def read(self, topic: str, partition: int, offsets: Sequence[int], limit: float) -> Sequence[Record]:
        return await self._open_reader().exactly(self._stream(topic, partition), offsets, limit)

    async def trim(self, topic: str, partition: int, before: int) -> None:
        stream = self._stream(topic, partition)
        before = min(before, stream.end)
        while stream.start < before:
            stream.start = await self._call(lambda connection: upkeep.remove_below(connection, stream, before))

    async def committed(self, topic: str, group: str) -> dict[int, int]:
        self._open_writer()
        return {p: commit.position for p, commit in self._commits.get((topic, group), {}).items()}

    async def commits(self, topic: str, group: str) -> Mapping[int, Commit]:
        return await self.load_commits(topic, group)

    async def ends(self, topic: str) -> Mapping[int, range]:
        self._open_writer()
        return {stream.partition: range(stream.start, stream.end) for stream in self._streams_of(topic)}

    def consumer(self, topic: str, group: str, *, window: int) -> LocalConsumer:
        def current() -> Group | None:
            found = self._groups.get((topic, group))
            return None if found is None or found.empty else found

        def new(commits: Mapping[int, Commit]) -> Group:
            starts = {stream.partition: Commit(stream.start) for stream in self._streams_of(topic)}
            made = self._groups[topic, group] = Group({**starts, **commits})
            return made

        return LocalConsumer(self, topic, group, window, current, new)

    def follower(self, topic: str, *, since_ms: int | None = None) -> LocalFollower:
        return LocalFollower(self, topic, since_ms)

    # -- storage for the readers (log_local/storage.py)

    def topic(self, name: str) -> TopicSpec:
        self._streams_of(name)
        return self._topics[name]

    def start_of(self, topic: str, partition: int) -> int:
        return self._stream(topic, partition).start

    def end_of(self, topic: str, partition: int) -> int:
        return self._stream(topic, partition).end

    def recent(self, topic: str, partition: int, offset: int, most: int) -> Sequence[Record] | None:
        return self._stream(topic, partition).recent(offset, most)

    async def stored(self, topic: str, partition: int, offset: int, most: int) -> Sequence[Record]:
        return await self._open_reader().following(self._stream(topic, partition), offset, most, READ_SECONDS)

    async def first_since(self, topic: str, partition: int, since_ms: int) -> int:
        return await self._open_reader().first_since(self._stream(topic, partition), since_ms, READ_SECONDS)

    def watch(self, topic: str, callback: Callable[[], None]) -> None:
        self._watchers.setdefault(topic, []).append(callback)

    def unwatch(self, topic: str, callback: Callable[[], None]) -> None:
        self._watchers[topic].remove(callback)

    async def load_commits(self, topic: str, group: str) -> Mapping[int, Commit]:
        self._open_writer()
        return dict(self._commits.get((topic, group), {}))

    async def save_commits(self, topic: str, group: str, commits: Mapping[int, Commit]) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: Exception | None) -> None:
            if error is None:
                self._commits.setdefault((topic, group), {}).update(commits)
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(LogUnavailable(f"the log {self._path} cannot be written: {error}"))

        self._open_writer().save(SaveCommits(topic, group, commits, done))
        await future

    # -- upkeep

    async def _keep_up(self) -> None:
        """Remove what is not needed any more; find out whether a log that failed works again."""
        loop = asyncio.get_running_loop()
        next_expiry = loop.time()
        while True:
            await asyncio.sleep(UPKEEP_SECONDS)
            try:
                if self._failed:
                    await self._probe()
                    continue
                await self._trim_finished()
                if loop.time() >= next_expiry:
                    next_expiry = loop.time() + _EXPIRY_SECONDS
                    await self._remove_expired()
                while await self._call(upkeep.give_back):
                    pass
            except LogError as error:
                _log.warning("upkeep of the log failed", reason=str(error))

    async def _probe(self) -> None:
        await self._call(upkeep.try_writing)
        self._failed = False
        _log.info("the log can be written again", file=str(self._path))
        for topic in self._watchers:
            self._wake(topic)

    async def _trim_finished(self) -> None:
        for name, spec in list(self._topics.items()):
            groups = [commits for (topic, _), commits in self._commits.items() if topic == name]
            for stream in self._streams[name]:
                positions = [
                    commits[stream.partition].position for commits in groups if stream.partition in commits
                ]
                before = upkeep.trimmable(stream, spec, min(positions, default=None))
                if before:
                    await self.trim(name, stream.partition, before)

    async def _remove_expired(self) -> None:
        now_ms = int(self._clock() * 1000)
        for name, spec in list(self._topics.items()):
            before_ms = upkeep.expires_before(spec, now_ms)
            for stream in self._streams[name]:
                if before_ms is not None:
                    await self._expire(stream, before_ms)
                while stream.compacted and await self._remove_deleted(stream, now_ms):
                    pass

    async def _expire(self, stream: Stream, before_ms: int) -> None:
        while True:
            start = await self._call(lambda connection: upkeep.remove_older(connection, stream, before_ms))
            if start <= stream.start:
                return
            stream.start = start

    async def _remove_deleted(self, stream: Stream, now_ms: int) -> bool:
        return await self._call(lambda connection: upkeep.remove_deleted(connection, stream, now_ms))

    # -- inside

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._open_writer().call(work)
        except sqlite3.Error as error:
            raise damaged(self._path, error) from error

    def _wake(self, topic: str) -> None:
        for callback in list(self._watchers.get(topic, ())):
            callback()

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise self._closed()
        return self._writer

    def _open_reader(self) -> Reader:
        if self._reader is None:
            raise self._closed()
        return self._reader

    def _streams_of(self, topic: str) -> list[Stream]:
        self._open_writer()
        streams = self._streams.get(topic)
        if streams is None:
            raise LogMisconfigured(f"the log {self._path} has no topic {topic}")
        return streams

    def _stream(self, topic: str, partition: int) -> Stream:
        streams = self._streams_of(topic)
        if not 0 <= partition < len(streams):
            raise LogMisconfigured(f"the topic {topic} has {len(streams)} partitions, so no partition {partition}")
        return streams[partition]

    def _closed(self) -> LogUnavailable:
        return LogUnavailable(f"the log {self._path} is not open")
