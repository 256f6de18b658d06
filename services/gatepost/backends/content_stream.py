"""Bodies on their way into the content topic: all of a process take turns, piece by piece.

A window bounds the pieces that the log has and has not confirmed, and with them the memory for its copies. Who
waits for a turn waits as long as the log moves: a limit that ran meanwhile would pass for all bodies together when
many come at once, and all their clients would begin again together. That the log stands still is told by a piece
that was handed over and ran into its own limit while no other succeeded: then all who wait are refused at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Final

from gatepost.core.envelope import ContentRef
from gatepost.core.ports.log import Entry, Log, LogError, LogUnavailable
from gatepost.telemetry import metrics
from gatepost.work.content_trimming import MARGIN_S

# Pieces that the log has at the same time. Each is copied a few times on its way (batch, request, socket): 8 of
# them are at most some 30 MB, and more would not make one broker any faster.
PIECES_AT_ONCE: Final = 8
# Of one body: one is with the broker, one is being made ready, one waits. All of a body lie in one partition,
# whose batches go one after the other.
OF_ONE_BODY: Final = 3
# RFC 5321 4.5.3.2.5: a client waits 3 minutes until a block of its data is taken.
TURN_SECONDS: Final = 120.0
# A log that is busy with many bodies may look away for a moment: within a piece's limit it is asked again.
AGAIN_SECONDS: Final = 0.25
# Nothing refers to a body before it is complete, so its pieces must not come to the age at which they are trimmed:
# a client that takes half a day for a message has to begin anew.
OLDEST_SECONDS: Final = MARGIN_S / 2

PIECE_HEADER: Final = "piece"


class Window:
    """The places for pieces on their way, given to streams in the order in which they asked, a piece each time."""

    def __init__(self, log: Log, topic: str) -> None:
        self.log, self.topic = log, topic
        self._free = PIECES_AT_ONCE
        self._queue: deque[PieceStream] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_success = 0.0

    def ask(self, stream: PieceStream) -> None:
        """A stream has a piece to send, and none of its own pieces is in its way."""
        self._queue.append(stream)
        self._hand_out()

    def forget(self, stream: PieceStream) -> None:
        """A stream that is queued has nothing to send any more."""
        self._queue.remove(stream)

    def succeeded(self) -> None:
        self._last_success = asyncio.get_running_loop().time()

    def gave_up(self, handed_over: float) -> None:
        """A piece has failed. When none has succeeded since it was handed over, the log stands still."""
        if self._last_success > handed_over:
            return
        waiting, self._queue = self._queue, deque()
        for stream in waiting:
            stream.turned_away(LogUnavailable("the log stood still while a body waited for its turn"))

    def _hand_out(self) -> None:
        while self._free and self._queue:
            stream = self._queue.popleft()
            self._free -= 1
            metrics.CONTENT_UNCONFIRMED.add(1)
            # It goes on when its stream is given up: the log has the piece in memory, so its place is taken. The
            # piece's own limit ends it.
            task = asyncio.get_running_loop().create_task(stream.take_turn(), name="content piece")
            self._tasks.add(task)
            task.add_done_callback(self._ended)
            stream.had_turn()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._free += 1
        metrics.CONTENT_UNCONFIRMED.add(-1)
        self._hand_out()


class PieceStream:
    """Implements the content port's ContentStream."""

    def __init__(self, window: Window, message_id: str, limit: float, on_room: Callable[[], None]) -> None:
        self._window, self._limit, self._on_room = window, limit, on_room
        self._key = message_id.encode()
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque()
        self._queued = False
        self._was_behind = False
        self._turn_limit: asyncio.TimerHandle | None = None
        self._on_their_way = 0
        self._offsets: list[int] = []
        self._partition: int | None = None
        self._error: LogError | None = None
        self._abandoned = False
        self._settled = asyncio.Event()
        self.handed_over = 0.0
        self._began = self._loop.time()

    @property
    def behind(self) -> bool:
        return bool(self._waiting)

    @property
    def failed(self) -> bool:
        return self._error is not None or self._abandoned

    def append(self, piece: bytes) -> None:
        if self.failed:
            return
        self._waiting.append(piece)
        self._ask()
        self._was_behind = self.behind

    async def finish(self, size: int, sha256: str) -> ContentRef:
        while not self.failed and (self._waiting or self._on_their_way):
            self._settled.clear()
            await self._settled.wait()
        if self._error is not None:
            raise self._error
        if self._abandoned:
            raise LogUnavailable("the body was given up")
        if self._loop.time() - self._began > OLDEST_SECONDS:
            raise LogUnavailable("the body took so long that its first pieces may be trimmed")
        return ContentRef(self._window.topic, self._partition or 0, tuple(self._offsets), size, sha256)

    def abandon(self) -> None:
        self._abandoned = True
        self._drop()

    # -- turns

    def _ask(self) -> None:
        """Queue for a turn where there is something to send and not too much of this body on its way."""
        if self._queued or not self._waiting or self._on_their_way >= OF_ONE_BODY:
            return
        self._queued = True
        self._turn_limit = self._loop.call_later(TURN_SECONDS, self._waited_too_long)
        self._window.ask(self)

    def take_turn(self) -> Coroutine[None, None, None]:
        """Called by the window: what sends the next piece, which is on its way from now on."""
        self._end_queueing()
        self._on_their_way += 1
        self.handed_over = self._loop.time()
        if not self._offsets:
            self._began = self.handed_over
        self._offsets.append(-1)
        return self._send(len(self._offsets) - 1, self._waiting.popleft(), self.handed_over)

    def had_turn(self) -> None:
        """Called by the window behind take_turn()."""
        self._ask()
        if self._was_behind and not self.behind:
            self._tell_of_room()

    def turned_away(self, error: LogError) -> None:
        """Called by the window, which has forgotten it: there will be no turn."""
        self._end_queueing()
        self._fail(error)

    def _end_queueing(self) -> None:
        self._queued = False
        if self._turn_limit is not None:
            self._turn_limit.cancel()
            self._turn_limit = None

    def _waited_too_long(self) -> None:
        self._fail(LogUnavailable("too many bodies are on their way at the same time"))

    def _fail(self, error: LogError) -> None:
        if self._error is None:
            self._error = error
        self._drop()
        self._tell_of_room()

    def _drop(self) -> None:
        self._waiting.clear()
        if self._queued:
            self._window.forget(self)
        self._end_queueing()
        self._settled.set()

    def _tell_of_room(self) -> None:
        self._was_behind = False
        # Not at once: who brings the body may be in the middle of append().
        self._loop.call_soon(self._on_room)

    # -- the log

    async def _send(self, number: int, piece: bytes, handed_over: float) -> None:
        try:
            self._offsets[number] = await self._write(number, piece, handed_over + self._limit)
        except LogError as error:
            # Whether this piece is written one day is nobody's question: without a reference there is no body.
            self._fail(LogUnavailable(f"a piece of a body was not written: {error}"))
            self._window.gave_up(handed_over)
        except BaseException:
            self._fail(LogUnavailable("the append of a piece was broken off"))
            raise
        else:
            self._window.succeeded()
        finally:
            self._on_their_way -= 1
            self._settled.set()
            if not self.failed:
                self._ask()

    async def _write(self, number: int, piece: bytes, deadline: float) -> int:
        """Append a piece until `deadline` (loop time); its offset. Raises LogUnavailable and LogUnknown."""
        headers = ((PIECE_HEADER, b"%s/%d" % (self._key, number)),)
        while True:
            # All pieces have the key and so go to one partition; were the topic to get more partitions meanwhile,
            # the first piece's still is for all.
            entry = Entry(self._window.topic, piece, self._key, headers, self._partition)
            try:
                position = await self._window.log.append(entry, max(deadline - self._loop.time(), 0.001))
            except LogUnavailable:  # nothing was written
                if deadline - self._loop.time() <= AGAIN_SECONDS:
                    raise
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            if self._partition is None:
                self._partition = position.partition
            if position.partition != self._partition:
                raise LogUnavailable(f"{self._window.topic} got more partitions while a body was written")
            return position.offset
