"""The body of one message while it is received: in memory up to INLINE_LIMIT, else into the content topic at once.

A body that is larger, or is declared to be, is written piece by piece while its content arrives: the process holds
of it what has come since the last piece, and at the final dot only the last piece is left to write. While a piece
waits for its turn the client waits too. docs/adr/0008-streaming-bodies.md has the reasons.

Memory for the first bytes is reserved before 354. A body borrows more, up to a whole piece, as long as there is
some and nobody waits; else its pieces are smaller: reading never stops for want of memory, and never fails for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from gatepost.core.envelope import INLINE_LIMIT, PIECE_SIZE, ContentRef
from gatepost.core.ports.content import Content, ContentStream
from gatepost.edge.memory import Memory
from gatepost.telemetry import metrics

# What one read of the socket brings at the most (the event loop's buffer): so much a body has in hand in any case.
READ_SIZE: Final = 256 * 1024
# hashlib lets go of the interpreter's lock for more than this. Where other threads wait for it (an embedded log's),
# taking it back costs an ordinary message more than its hash: small parts are hashed in such portions.
_PORTION: Final = 2047
_SMALL_PART: Final = 16 * 1024
# The most that a body has in hand: a piece and the read that made it full.
MOST_IN_HAND: Final = PIECE_SIZE + READ_SIZE


def reservation(declared: int) -> int:
    """The memory that a body of the declared size (0: unknown) must have before its first byte is asked for."""
    return INLINE_LIMIT if 0 < declared <= INLINE_LIMIT else READ_SIZE


class ReceivedBody:
    """A body that is being received; complete when nothing more is added.

    `reserved` bytes must have been reserved in `memory` for it. `limit` is for each append, in seconds; `on_room`
    is called when a body that was `behind` can take more. close() gives everything back, at any time.
    """

    def __init__(
        self,
        message_id: str,
        content: Content,
        memory: Memory,
        reserved: int,
        limit: float,
        on_room: Callable[[], None],
    ) -> None:
        self.message_id = message_id
        self._content, self._memory = content, memory
        self._least = self._reserved = reserved
        self._limit, self._on_room = limit, on_room
        self._hash = hashlib.sha256()
        self._parts: list[bytes] = []
        self._in_hand = 0
        self._stream: ContentStream | None = None
        self._closed = False
        self.size = 0

    def add(self, part: bytes) -> None:
        """Take what has come next."""
        if self._closed:
            return
        self.size += len(part)
        if self._stream is not None and self._stream.failed:
            self._parts, self._in_hand = [], 0  # the rest is read, since the client is answered behind it
            return
        self._add_to_hash(part)
        self._parts.append(part)
        self._in_hand += len(part)
        if self._in_hand >= PIECE_SIZE or (self._in_hand > self._reserved and not self._grow()):
            self._cut()

    def _add_to_hash(self, part: bytes) -> None:
        """Here in the event loop: a read's worth takes 0.15 ms with the processor's SHA instructions and 1 ms
        without, which is no more than the way to a thread and back costs, and nobody waits long for it.
        """
        if len(part) > _SMALL_PART:
            self._hash.update(part)
            return
        view = memoryview(part)
        for start in range(0, len(part), _PORTION):
            self._hash.update(view[start : start + _PORTION])

    @property
    def behind(self) -> bool:
        """Whether the client should wait, since a piece waits for its turn."""
        return self._stream is not None and self._stream.behind

    @property
    def in_hand(self) -> int:
        """Bytes that have come since the last piece."""
        return self._in_hand

    @property
    def sha256(self) -> str:
        """Of all that was added."""
        return self._hash.hexdigest()

    @property
    def inline(self) -> bool:
        """Whether the record itself is to carry it, when it is complete."""
        return self.size <= INLINE_LIMIT

    @property
    def handed_over(self) -> float:
        """When the log was given the last piece, in the loop's time; 0 for a body that is inline."""
        return 0.0 if self._stream is None else self._stream.handed_over

    def whole(self) -> bytes:
        """All of a body that is inline."""
        if len(self._parts) != 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0]

    async def stored(self) -> ContentRef:
        """Write what is left of a body that is not inline; the reference. Raises LogUnavailable."""
        stream = self._cut(last=True)
        return await stream.finish(self.size, self.sha256)

    def close(self) -> None:
        """Give back the memory and give up what is not stored; again is fine."""
        if self._closed:
            return
        self._closed = True
        self._parts, self._in_hand = [], 0
        if self._stream is not None:
            self._stream.abandon()
            metrics.BODIES_STREAMING.add(-1)
        self._memory.give_back(self._called_back)
        self._memory.release(self._least)

    def _cut(self, *, last: bool = False) -> ContentStream:
        """Hand over what is here: full pieces, and the rest when it is the last or memory is short."""
        stream = self._stream
        if stream is None:
            stream = self._stream = self._content.open(self.message_id, self._limit, self._on_room)
            metrics.BODIES_STREAMING.add(1)
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        keep = 0 if last or self._in_hand < PIECE_SIZE else self._in_hand % PIECE_SIZE
        for start in range(0, len(data) - keep, PIECE_SIZE):
            stream.append(data[start : min(start + PIECE_SIZE, len(data) - keep)])
        self._parts = [data[len(data) - keep :]] if keep else []
        self._in_hand = keep
        return stream

    def _grow(self) -> bool:
        """Borrow enough for a whole piece, unless others wait for memory."""
        if not self._memory.borrow(MOST_IN_HAND - self._reserved, self._called_back):
            return False
        self._reserved = MOST_IN_HAND
        return True

    def _called_back(self) -> None:
        """Others wait before 354: keep what was reserved at first, and let what is here be a smaller piece."""
        if self._in_hand > self._least:
            self._cut()
        self._reserved = self._least
        self._memory.give_back(self._called_back)
