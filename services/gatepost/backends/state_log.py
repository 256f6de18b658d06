"""The State port over the log's topic `state`: what is appended there is what all edges remember.

A record's key is `kind/key`; its value says version, expiry and data; an empty value removes. All records of a key
lie in one partition, so every edge reads them in the same order: of several takes, the one whose record comes first
has the entry, and each edge sees by itself whether that was its own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import structlog

from gatepost.backends.state_entries import AllEntries, record_key, record_value
from gatepost.core.ports.log import (
    Entry,
    Follower,
    Log,
    LogError,
    LogUnavailable,
    LogUnknown,
    Position,
    Record,
)
from gatepost.core.ports.state import Kind, StateUnavailable, StateUnknown, TakeUnknown
from gatepost.telemetry import metrics
from gatepost.telemetry.lasting import lasting

# Names the call of a removing record, so that the edge that wrote it knows it again.
TAKE_HEADER: Final = "take"

FETCH_LIMIT_S: Final = 1.0
BEHIND_LIMIT_S: Final = 0.05  # until it has read to the end: an empty topic answers nothing
# A follower that does not even come back from fetch() is given up and replaced.
HANGING_S: Final = 30.0
RETRY_S: Final = 1.0
# Entries of put_soon() that wait for the log: some 10 s of a busy edge without one, at most 5 MB.
BUFFER_ENTRIES: Final = 10_000
FLUSH_ENTRIES: Final = 500
# How long they wait for company: still far below the 2 s in which other edges shall know.
FLUSH_S: Final = 0.1
APPEND_LIMIT_S: Final = 10.0
CLOSE_S: Final = 3.0

T = TypeVar("T")

_log = structlog.get_logger("gatepost.state")


class _Take:
    """One take() on its way. `position` is where its record lies, once that is known."""

    __slots__ = ("future", "key", "position")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.position: Position | None = None
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.future.add_done_callback(_retrieve)

    def settle(self, value: Any) -> None:
        if not self.future.done():
            self.future.set_result(value)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class _Outcome:
    """Awaitable by several, without one cancelling it for another."""

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future

    def __await__(self) -> Any:
        return asyncio.shield(self._future).__await__()


class LogState:
    """Implements the State port. Needs start(), which never fails, and close(), which writes what waits."""

    def __init__(
        self,
        log: Log,
        topic: str,
        kinds: Sequence[Kind[Any]],
        now_ms: Callable[[], int],
        *,
        buffer: int = BUFFER_ENTRIES,
    ) -> None:
        self._log, self._topic, self._now_ms = log, topic, now_ms
        self._entries = AllEntries(kinds)
        self._soon: dict[bytes, bytes] = {}
        self._most_soon = buffer
        self._wake = asyncio.Event()
        self._takes: dict[bytes, _Take] = {}
        self._read: dict[int, int] = {}  # partition -> the last offset that was read
        self._unread: dict[bytes, Position] = {}  # own changes that were not read back yet
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._caught_up = False

    # -- life

    async def start(self) -> None:
        """Begin to follow; however long the log is away, this goes on by itself when it is there."""
        self._tasks |= {lasting("state follow", self._follow), lasting("state flush", self._flush)}

    async def close(self) -> None:
        """Write what put_soon() left, for at most CLOSE_S; end. Takes in flight become unknown."""
        self._closing = True
        with suppress(TimeoutError, LogError):
            async with asyncio.timeout(CLOSE_S):
                while self._soon:
                    await self._write_some(CLOSE_S)
        self._lost(len(self._soon))
        self._soon.clear()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_S)
        for take in self._takes.values():
            take.fail(StateUnknown("the shared memory was closed"))
        self._takes.clear()

    def _own(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("state.fault", task=task.get_name(), exc_info=task.exception())

    # -- reading

    def get(self, kind: Kind[T], key: str, now_ms: int) -> T | None:
        found: T | None = self._entries.of(kind).get(key, now_ms)
        return found

    @property
    def current(self) -> bool:
        return self._caught_up and self._log.available

    def size(self, kind: Kind[T]) -> int:
        return len(self._entries.of(kind))

    def on_change(self, kind: Kind[T], callback: Callable[[str, T | None], None]) -> None:
        self._entries.of(kind).on_change(callback)

    # -- writing

    async def put(self, kind: Kind[T], key: str, value: T, until_ms: int, limit: float) -> None:
        name, data = record_key(kind, key), record_value(kind, value, until_ms)
        self._entries.of(kind)
        self._soon.pop(name, None)
        await self._change(name, data, limit)

    def put_soon(self, kind: Kind[T], key: str, value: T, until_ms: int) -> None:
        name, data = record_key(kind, key), record_value(kind, value, until_ms)
        self._entries.of(kind)
        if name not in self._soon and len(self._soon) >= self._most_soon:
            del self._soon[next(iter(self._soon))]
            self._lost(1)
        self._soon[name] = data
        self._wake.set()

    async def remove(self, kind: Kind[T], key: str, limit: float) -> None:
        name = record_key(kind, key)
        self._soon.pop(name, None)
        await self._change(name, None, limit)

    async def _change(self, name: bytes, data: bytes | None, limit: float) -> None:
        try:
            position = await self._log.append(Entry(self._topic, data, name), limit)
        except LogUnknown as error:
            raise StateUnknown(f"{name!r} may be written yet: {error}") from error
        except LogError as error:
            raise StateUnavailable(f"{name!r} is not written: {error}") from error
        if self._read.get(position.partition, -1) < position.offset:
            self._unread[name] = position

    async def take(self, kind: Kind[T], key: str, limit: float) -> T | None:
        name = record_key(kind, key)
        self._entries.of(kind)
        for other in self._takes.values():
            if other.key == name:
                await self._after(other, limit)
                return None
        self._soon.pop(name, None)
        deadline = asyncio.get_running_loop().time() + limit
        nonce, take = os.urandom(12), _Take(name)
        self._takes[nonce] = take
        take.future.add_done_callback(lambda _: self._takes.pop(nonce, None))
        try:
            await self._wait_for_own(take, deadline)
            await self._append_take(nonce, take, max(deadline - asyncio.get_running_loop().time(), 0.0))
            async with asyncio.timeout_at(deadline):
                taken: T | None = await asyncio.shield(take.future)
        except TimeoutError:
            raise TakeUnknown(f"{name!r} is taken, but by whom was not read yet", _Outcome(take.future)) from None
        return taken

    async def _after(self, other: _Take, limit: float) -> None:
        """Another call of this process is about to have the entry."""
        try:
            async with asyncio.timeout(limit):
                await asyncio.shield(other.future)
        except TimeoutError:
            raise StateUnavailable(f"{other.key!r} is being taken") from None

    async def _wait_for_own(self, take: _Take, deadline: float) -> None:
        """Have read what this process wrote last under the key: a log may remove it as soon as there is a newer."""
        try:
            async with asyncio.timeout_at(deadline):
                while take.key in self._unread:
                    self._news.clear()
                    await self._news.wait()
        except BaseException as error:
            refused = StateUnavailable(f"{take.key!r} has not come back from the log yet")
            take.fail(refused)
            if isinstance(error, TimeoutError):
                raise refused from None
            raise

    async def _append_take(self, nonce: bytes, take: _Take, limit: float) -> None:
        entry = Entry(self._topic, None, take.key, ((TAKE_HEADER, nonce),))
        try:
            take.position = await self._log.append(entry, limit)
        except LogUnknown as error:
            self._own(self._ask(take, error.outcome), "state take")
            raise TakeUnknown(f"{take.key!r} may be taken yet: {error}", _Outcome(take.future)) from error
        except LogError as error:
            refused = StateUnavailable(f"{take.key!r} is not taken: {error}")
            take.fail(refused)
            raise refused from error
        except BaseException:
            # Cancelled, the record may still be written, and nobody will know whose it was.
            take.fail(StateUnknown("the take was given up"))
            raise
        self._settle_overtaken()

    async def _ask(self, take: _Take, outcome: Awaitable[Position]) -> None:
        """Learn what became of a take's record; if it was written, the follower meets it."""
        try:
            take.position = await outcome
        except LogUnavailable as error:
            take.fail(StateUnavailable(f"{take.key!r} was not taken: {error}"))
        except LogError as error:
            take.fail(StateUnknown(f"whether {take.key!r} was taken is not known: {error}"))
        else:
            self._settle_overtaken()

    def _settle_overtaken(self) -> None:
        """A take whose record was compacted away before it was read has lost: a later one stands in its place."""
        for take in list(self._takes.values()):
            if take.position is not None and self._read.get(take.position.partition, -1) >= take.position.offset:
                take.settle(None)

    def _settle_read(self) -> None:
        """Forget which own changes have not come back, as far as they have."""
        for name, (partition, offset) in list(self._unread.items()):
            if self._read.get(partition, -1) >= offset:
                del self._unread[name]

    # -- put_soon's buffer

    async def _flush(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._soon and not self._closing:
                await asyncio.sleep(FLUSH_S)
                try:
                    await self._write_some(APPEND_LIMIT_S)
                except LogError as error:
                    _log.debug("state.waits", reason=str(error))
                    await asyncio.sleep(RETRY_S)

    async def _write_some(self, limit: float) -> None:
        """Write the oldest of what waits; put it back where that fails, unless something newer has come."""
        names = [name for name, _ in zip(self._soon, range(FLUSH_ENTRIES), strict=False)]
        some = {name: self._soon.pop(name) for name in names}
        try:
            await self._log.append_many([Entry(self._topic, data, name) for name, data in some.items()], limit)
        except BaseException:
            merged = {**some, **self._soon}
            for name in list(merged)[: max(len(merged) - self._most_soon, 0)]:
                del merged[name]
                self._lost(1)
            self._soon = merged
            raise

    @staticmethod
    def _lost(count: int) -> None:
        if count:
            metrics.STATE_LOST.add(by=count)

    # -- following

    async def _follow(self) -> None:
        told = False
        while True:
            follower = self._log.follower(self._topic)
            try:
                await follower.start()
                told = False
                await self._read_all(follower)
            except (LogError, TimeoutError) as error:
                # Once, not at every try: an outage of an hour would be 3,600 lines.
                (_log.debug if told else _log.warning)("state.waits", reason=str(error) or "it hangs")
                told = True
            finally:
                await self._let_go(follower)
            await asyncio.sleep(RETRY_S)

    @staticmethod
    async def _let_go(follower: Follower) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await follower.close()
        except Exception as error:  # a follower that is broken may not even close
            _log.warning("state.follower", reason=repr(error))

    async def _read_all(self, follower: Follower) -> None:
        """Apply what comes. A new follower begins at the start: all is applied again, in the same order."""
        self._read.clear()
        self._caught_up = False
        while True:
            async with asyncio.timeout(HANGING_S):
                records = await follower.fetch(FETCH_LIMIT_S if self._caught_up else BEHIND_LIMIT_S)
            for record in records:
                self._apply(record)
            self._caught_up = self._caught_up or follower.caught_up
            if records and self._takes:
                self._settle_overtaken()
            if records and self._unread:
                self._settle_read()
                self._news.set()

    def _apply(self, record: Record) -> None:
        self._read[record.partition] = record.offset
        found = self._entries.find(record.key or b"")
        if found is None:
            return
        entries, key = found
        if record.value:
            entries.take_in(key, record.value, self._now_ms())
            return
        removed = entries.remove(key)
        nonce = record.header(TAKE_HEADER)
        take = None if nonce is None else self._takes.get(nonce)
        if take is not None:
            take.settle(removed)


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Nobody has to ask what became of it."""
    if not future.cancelled():
        future.exception()
