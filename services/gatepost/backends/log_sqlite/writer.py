"""The one thread that writes the embedded log: what waits is written together and synced once.

Appends, and commits of consumers, are taken from a queue in batches; a batch is one transaction. The event loop
hears of a batch by one call. Other work (creating topics, removing old records) runs between two batches.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

import msgspec

from gatepost.backends.log_sqlite.stream import Stream
from gatepost.backends.pending import Pending
from gatepost.core.completion import Commit
from gatepost.core.ports.log import Entry, LogError, LogUnavailable, Position

T = TypeVar("T")

# A batch is limited so that nobody waits long behind it; 16 MiB are about a dozen pieces of bodies.
_BATCH_RECORDS: Final = 1000
_BATCH_BYTES: Final = 16 * 1024 * 1024
# One INSERT of many rows gives up Python's lock once instead of once a row, which matters when the loop is busy.
_ROWS: Final = (64, 16, 4, 1)
_INSERTS: Final = {
    rows: "INSERT INTO records (id, at, key, headers, value) VALUES " + ",".join(["(?,?,?,?,?)"] * rows)  # noqa: S608
    for rows in _ROWS
}

# Where the last batch had company, the next one waits so long for it: fewer transactions and syncs for the same
# mail. An append that is alone never waits.
_LINGER_S: Final = 0.003

# In place of an entry that has come to its end: who watches the limit keeps the append until the limit passes, and
# would keep seconds of large bodies with it.
_SETTLED: Final = Entry("", None)

encode_headers = msgspec.msgpack.Encoder().encode


class Append(Pending):
    """One entry on its way to the file. `offset` is set when the writer has begun with it."""

    __slots__ = ("_lock", "begun", "dropped", "entry", "offset", "stream")

    def __init__(self, writer: Writer, stream: Stream, entry: Entry) -> None:
        super().__init__(writer.loop)
        self._lock = writer.lock
        self.begun = False
        self.dropped = False
        self.stream = stream
        self.entry = entry
        self.offset = -1

    def resolve(self, position: Position) -> None:
        super().resolve(position)
        self.entry = _SETTLED

    def fail(self, error: LogError) -> None:
        super().fail(error)
        self.entry = _SETTLED

    def expire(self) -> None:
        """Past its limit an append that the writer has not begun is dropped: then nothing was written."""
        if self.waiter.done():
            return
        with self._lock:
            self.dropped = not self.begun
        if self.dropped:
            self.waiter.set_exception(
                LogUnavailable("the log is too slow: the append was given up before it was begun")
            )
        else:
            super().expire()


class SaveCommits(msgspec.Struct, frozen=True):
    """Commits of one group on one topic; `done` is called in the loop with an error or None."""

    topic: str
    group: str
    commits: Mapping[int, Commit]
    done: Callable[[Exception | None], None]


class Call(msgspec.Struct, frozen=True):
    """Other work on the file, in a transaction of its own; `done` is called in the loop."""

    work: Callable[[sqlite3.Connection], Any]
    done: Callable[[Any, Exception | None], None]


class Written(msgspec.Struct, frozen=True):
    """A batch that is durable, or is not because of `error`. `at_ms` is when it was written."""

    appends: Sequence[Append]
    at_ms: int
    error: sqlite3.Error | None = None


Job = Sequence[Append] | SaveCommits | Call | None


class Writer:
    """Owns the writing connection and its thread."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        ends: Mapping[int, int],
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        on_written: Callable[[Written], None],
    ) -> None:
        """`ends`: stream number -> next offset. `on_written` is called in the loop for each batch."""
        self._connection = connection
        self._ends = dict(ends)
        self.loop = loop
        self._clock = clock
        self._on_written = on_written
        self._queue: SimpleQueue[Job] = SimpleQueue()
        self.lock = threading.Lock()
        self._busy_since: float | None = None
        self._crowd = False
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    # -- from the loop

    def append(self, appends: Sequence[Append]) -> None:
        """Write these together: all or none."""
        self._queue.put(appends)

    def save(self, commits: SaveCommits) -> None:
        self._queue.put(commits)

    async def call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in the writer's thread in a transaction. Raises what it raises."""
        future: asyncio.Future[T] = self.loop.create_future()

        def done(result: T, error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self._queue.put(Call(work, done))
        return await future

    @property
    def busy_for(self) -> float:
        """How many seconds the present batch has been going on."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self, limit: float) -> bool:
        """Write what is in the queue and end; blocks at most `limit` seconds. False when it did not end."""
        self._queue.put(None)
        self._thread.join(limit)
        return not self._thread.is_alive()

    # -- in the thread

    def _run(self) -> None:
        while True:
            jobs, more = self._next()
            self._busy_since = time.monotonic()
            appends = [append for job in jobs if isinstance(job, list | tuple) for append in job]
            self._crowd = len(appends) > 1
            saves = [job for job in jobs if isinstance(job, SaveCommits)]
            if appends or saves:
                self._write(appends, saves)
            for job in jobs:
                if isinstance(job, Call):
                    self._call(job)
            self._busy_since = None
            if not more:
                self._connection.close()
                return

    def _next(self) -> tuple[Sequence[Job], bool]:
        """Wait for a job and take what else is there, within the limits of a batch; False: stop after these."""
        jobs: list[Job] = []
        records = size = 0
        job = self._queue.get()
        if self._crowd:
            time.sleep(_LINGER_S)
        while job is not None:
            jobs.append(job)
            if isinstance(job, list | tuple):
                records += len(job)
                size += sum(len(append.entry.value or b"") for append in job)
            if records >= _BATCH_RECORDS or size >= _BATCH_BYTES:
                return jobs, True
            try:
                job = self._queue.get_nowait()
            except Empty:
                return jobs, True
        return jobs, False

    def _write(self, appends: Sequence[Append], saves: Sequence[SaveCommits]) -> None:
        with self.lock:
            appends = [append for append in appends if not append.dropped]
            for append in appends:
                append.begun = True
        at_ms = int(self._clock() * 1000)
        error: sqlite3.Error | None = None
        ends = dict(self._ends)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._insert(appends, at_ms, ends)
            for save in saves:
                self._save(save)
            self._connection.execute("COMMIT")
            self._ends = ends
        except sqlite3.Error as failure:
            error = failure
            self._roll_back()
        if appends:
            self._tell(self._on_written, Written(appends, at_ms, error))
        for save in saves:
            self._tell(save.done, error)

    def _insert(self, appends: Sequence[Append], at_ms: int, ends: dict[int, int]) -> None:
        rows: list[tuple[int, int, bytes | None, bytes | None, bytes | None]] = []
        for append in appends:
            stream, entry = append.stream, append.entry
            offset = append.offset = ends.get(stream.number, 0)
            ends[stream.number] = offset + 1
            headers = encode_headers(entry.headers) if entry.headers else None
            rows.append((stream.base | offset, at_ms, entry.key, headers, entry.value))
        start = 0
        for size in _ROWS:
            while len(rows) - start >= size:
                flat = [value for row in rows[start : start + size] for value in row]
                self._connection.execute(_INSERTS[size], flat)
                start += size
        for append in appends:
            if append.stream.compacted:
                self._compact(append)

    def _compact(self, append: Append) -> None:
        """Remove the older record of the same key."""
        stream = append.stream
        parameters = (stream.number, append.entry.key or b"")
        older = self._connection.execute(
            "SELECT offset FROM latest WHERE stream = ? AND key = ?", parameters
        ).fetchone()
        if older is not None:
            self._connection.execute("DELETE FROM records WHERE id = ?", (stream.base | older[0],))
        self._connection.execute("INSERT OR REPLACE INTO latest VALUES (?, ?, ?)", (*parameters, append.offset))

    def _save(self, save: SaveCommits) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO commits VALUES (?, ?, ?, ?, ?)",
            [(save.topic, save.group, p, commit.position, commit.metadata) for p, commit in save.commits.items()],
        )

    def _call(self, call: Call) -> None:
        result = None
        error: Exception | None = None
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            result = call.work(self._connection)
            self._connection.execute("COMMIT")
        except Exception as failure:  # handed to the caller
            error = failure
            self._roll_back()
        self._tell(call.done, result, error)

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                # SQLite has rolled back by itself; the next BEGIN tells if not.
                return

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self.loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop is closed: nobody is left to hear of it.
            return
