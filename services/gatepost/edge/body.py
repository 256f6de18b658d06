"""The body of one message while it is received and stored: in memory, or in an unlinked file when it is large.

Memory is reserved before the first byte. A body that grows beyond its reservation asks for more, and goes to its
file early when there is none: reading never stops for want of memory, and never fails for it. Files are written and
read in threads, so a slow disk holds up one session only.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import IO, Final

from gatepost.core.envelope import INLINE_LIMIT, PIECE_SIZE
from gatepost.edge.memory import Memory

DEFAULT_RESERVATION: Final = INLINE_LIMIT  # a message whose SIZE was not declared is most often smaller
WRITE_SIZE: Final = 256 * 1024
# So much may wait for the disk before the client is made to wait.
MOST_PENDING: Final = 1024 * 1024


class SpoolError(Exception):
    """The body could not be written to its file, or read from it: a full or broken disk."""


def reservation(declared: int, spool_above: int) -> int:
    """The memory that a body of the declared size (0: unknown) will take at the most, a file or not."""
    return min(declared or DEFAULT_RESERVATION, spool_above + PIECE_SIZE)


class Spool:
    """Where large bodies go: the folder, the threads, and from which size on. `writes` are under way."""

    def __init__(self, executor: Executor, folder: Path | None, above: int) -> None:
        self.executor, self.folder, self.above = executor, folder, above
        self.writes: set[asyncio.Future[None]] = set()

    async def settle(self, limit: float) -> None:
        """Wait at most `limit` seconds for writes under way, whose files are closed then."""
        if self.writes:
            await asyncio.wait(self.writes, timeout=limit)


class ReceivedBody:
    """A Body (core/ports/content) that is being received; read-only and complete after finish().

    `reserved` bytes must have been reserved in `memory` for it. close() gives everything back, at any time.
    """

    def __init__(self, memory: Memory, spool: Spool, reserved: int, on_room: Callable[[], None]) -> None:
        self._memory, self._spool, self._reserved, self._on_room = memory, spool, reserved, on_room
        self._hash = hashlib.sha256()
        self._pieces: list[bytes] = []
        self._in_pieces = 0
        self._spooling = False
        self._hashed = 0  # of _pieces; the others are hashed in the thread that writes them
        self._file: IO[bytes] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._broken = False
        self._closed = False
        self.size = 0

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
        self.size += len(piece)
        self._pieces.append(piece)
        self._in_pieces += len(piece)
        if not self._spooling:
            self._hash.update(piece)
            self._hashed += 1
            if self._in_pieces <= self._reserved and self.size <= self._spool.above:
                return
            if self.size <= self._spool.above and self._extend():
                return
            self._spooling = True
        if self._in_pieces >= WRITE_SIZE and self._writing is None:
            self._write()

    def _extend(self) -> bool:
        more = min(max(2 * self._reserved, self.size), self._spool.above) - self._reserved
        if not self._memory.try_reserve(more):
            return False
        self._reserved += more
        return True

    @property
    def behind(self) -> bool:
        """Whether the client should wait until the disk has caught up; on_room is called then."""
        return self._spooling and self._in_pieces > MOST_PENDING

    @property
    def sha256(self) -> str:
        """Of the whole body once finish() has returned."""
        return self._hash.hexdigest()

    def _write(self) -> None:
        pieces, self._pieces, self._in_pieces = self._pieces, [], 0
        hashed, self._hashed = self._hashed, 0
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(self._spool.executor, self._write_pieces, pieces, hashed)
        self._spool.writes.add(self._writing)
        self._writing.add_done_callback(self._written)

    def _write_pieces(self, pieces: list[bytes], hashed: int) -> None:
        if self._file is None:
            # Without a name from the start: no crash leaves it behind. close() closes it.
            self._file = tempfile.TemporaryFile(dir=self._spool.folder, buffering=0)  # noqa: SIM115
        for number, piece in enumerate(pieces):
            if number >= hashed:
                self._hash.update(piece)
            left = memoryview(piece)
            while left:
                left = left[self._file.write(left) :]

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._writing = None
        self._spool.writes.discard(writing)
        if writing.cancelled() or writing.exception() is not None:
            self._broken = True
        if self._closed:
            self._close_file()
            return
        was_behind = self.behind
        if self._broken:
            self._pieces, self._in_pieces = [], 0
        elif self._in_pieces >= WRITE_SIZE:
            self._write()
        if was_behind and not self.behind:
            self._on_room()

    async def finish(self, limit: float) -> None:
        """Have all of it in memory or all of it in the file, within `limit` seconds. Raises SpoolError."""
        while self._spooling and not self._broken and (self._writing is not None or self._pieces):
            if self._writing is None:
                self._write()
            if self._writing is not None:
                _, late = await asyncio.wait([self._writing], timeout=limit)
                if late:
                    raise SpoolError("the spool file was not written in time")
        if self._broken:
            raise SpoolError("the spool file could not be written")

    def whole(self) -> bytes:
        if self._spooling:
            return self._read(0, self.size)
        if len(self._pieces) != 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        if not self._spooling:
            data = self.whole()
            for start in range(0, len(data), size):
                yield data[start : start + size]
            return
        loop = asyncio.get_running_loop()
        for start in range(0, self.size, size):
            length = min(size, self.size - start)
            yield await loop.run_in_executor(self._spool.executor, self._read, start, length)

    def _read(self, start: int, length: int) -> bytes:
        if self._file is None:
            raise SpoolError("the spool file is closed")
        data = os.pread(self._file.fileno(), length, start)
        while len(data) < length:
            more = os.pread(self._file.fileno(), length - len(data), start + len(data))
            if not more:
                raise SpoolError("the spool file is shorter than the body")
            data += more
        return data

    def close(self) -> None:
        """Give back memory and file; again is fine."""
        if self._closed:
            return
        self._closed = True
        self._pieces, self._in_pieces = [], 0
        self._memory.release(self._reserved)
        if self._writing is None:
            self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
