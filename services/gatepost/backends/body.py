"""Bodies of messages: in memory while small, else in an unlinked file that no crash leaves behind."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from gatepost.core.memory_body import MemoryBody

__all__ = ["BodyWriter", "MemoryBody", "SpooledBody"]


class SpooledBody:
    """A body in a file that has no name any more: it goes with the last descriptor, however the process ends.

    Owns the descriptor until close(), or until it is collected.
    """

    def __init__(self, handle: int, size: int, sha256: str) -> None:
        self._handle = handle
        self._size = size
        self._sha256 = sha256

    @property
    def size(self) -> int:
        return self._size

    @property
    def sha256(self) -> str:
        return self._sha256

    def whole(self) -> bytes:
        return self._read(self._size, 0)

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        for start in range(0, self._size, size):
            # In a thread: what has been written back to the disk may take a while to come.
            yield await loop.run_in_executor(None, self._read, min(size, self._size - start), start)

    def close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __del__(self) -> None:
        self.close()

    def _read(self, size: int, start: int) -> bytes:
        if self._handle < 0:
            raise ValueError("the body is closed")
        parts = []
        while size:
            part = os.pread(self._handle, size, start)
            if not part:
                raise OSError("the spooled body is shorter than it was")
            parts.append(part)
            size -= len(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class BodyWriter:
    """Takes a body as it arrives, hashing it on the way; above `spool_above` bytes it goes to a file.

    Writing a piece to the file goes to the system's page cache and so is not waited for. Raises OSError when
    the folder has no room.
    """

    def __init__(self, spool_above: int, folder: Path | None = None) -> None:
        """`folder` None: the system's temporary folder."""
        self._spool_above = spool_above
        self._folder = folder
        self._parts: list[bytes] = []
        self._hash = hashlib.sha256()
        self._size = 0
        self._handle = -1

    @property
    def size(self) -> int:
        return self._size

    def write(self, data: bytes) -> None:
        """Add a piece. It is kept as it is, so it must not be a mutable buffer."""
        self._hash.update(data)
        self._size += len(data)
        self._parts.append(data)
        if self._handle >= 0 or self._size > self._spool_above:
            self._spill()

    def finish(self) -> MemoryBody | SpooledBody:
        """Return the body; the writer is of no more use then."""
        sha256 = self._hash.hexdigest()
        if self._handle < 0:
            return MemoryBody(b"".join(self._parts), sha256)
        handle, self._handle = self._handle, -1
        return SpooledBody(handle, self._size, sha256)

    def abandon(self) -> None:
        """Give up what was written."""
        self._parts.clear()
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __del__(self) -> None:
        self.abandon()

    def _spill(self) -> None:
        if self._handle < 0:
            self._handle = _unlinked_file(self._folder)
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        view = memoryview(data)
        while view:
            view = view[os.write(self._handle, view) :]


def _unlinked_file(folder: Path | None) -> int:
    directory = str(folder or tempfile.gettempdir())
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        # Not every file system can make a file without a name.
        handle, name = tempfile.mkstemp(dir=directory, prefix="gatepost-body-")
        os.unlink(name)
        return handle
