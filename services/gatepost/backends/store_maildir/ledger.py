"""The ledger: which ids were delivered, remembered for longer than records of the log can come again.

Files `<milliseconds since 1970>.ids` of one id a line, so that `grep` answers a question. Ids are only appended;
a file is closed after an eighth of the time to keep and removed as a whole when all in it is too old. What a
crash tore is no id and is cut off at the next start. In memory an id of a closed file takes 27 bytes.
"""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Callable, Sequence
from typing import Final

ID_SIZE: Final = 26
_STRIDE: Final = ID_SIZE + 1
_WELL_FORMED: Final = re.compile(rb"(?:[0-7][0-9A-HJKMNP-TV-Z]{25}\n)*")
_NAME: Final = re.compile(r"([0-9]{13,16})\.ids", re.ASCII)

SEGMENTS: Final = 8
# Closing a file sorts its ids with the interpreter's lock held: 100,000 take about 30 ms.
MAX_OPEN_IDS: Final = 100_000


class _Closed:
    """The ids of a closed file, sorted, with its first and last to pass over it quickly.

    Ids begin with the time of their message, so a new message's id lies behind all closed files.
    """

    def __init__(self, started_ms: int, ids: Sequence[bytes]) -> None:
        self.started_ms = started_ms
        ordered = sorted(ids)
        self._first, self.last = (ordered[0], ordered[-1]) if ordered else (b"", b"")
        self._count = len(ordered)
        self._ids = b"\n".join(ordered)

    def __contains__(self, wanted: bytes) -> bool:
        if not self._first <= wanted <= self.last:
            return False
        place = bisect.bisect_left(range(self._count), wanted, key=self._at)
        return place < self._count and self._at(place) == wanted

    def _at(self, place: int) -> bytes:
        return self._ids[place * _STRIDE : place * _STRIDE + ID_SIZE]


class Ledger:
    """Not thread-safe: belongs to the store's one worker thread. `keep_ms`: how long ids are remembered."""

    def __init__(self, folder: str, keep_ms: int, now_ms: Callable[[], int]) -> None:
        self._folder = folder
        self._keep_ms = keep_ms
        self._now_ms = now_ms
        self._closed: list[_Closed] = []
        self._last_closed = b""
        self._ids: set[bytes] = set()
        self._file = -1
        self._started_ms = 0
        self._size = 0
        self._in_doubt = False

    def open(self) -> None:
        """Read what is there, cut torn tails off, and begin a new file. Raises OSError."""
        os.makedirs(self._folder, 0o700, exist_ok=True)
        starts = sorted(
            int(found.group(1)) for name in os.listdir(self._folder) if (found := _NAME.fullmatch(name))
        )
        for started_ms in starts:
            self._shut(_Closed(started_ms, self._read(started_ms)))
        self._begin()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __contains__(self, message_id: str) -> bool:
        wanted = message_id.encode("ascii")
        if wanted in self._ids:
            return True
        return wanted <= self._last_closed and any(wanted in segment for segment in self._closed)

    def append(self, message_ids: Sequence[str]) -> None:
        """Add ids durably. Raises OSError; then none of them is known, and whether they are on disk is unsure.

        Until repair() has settled that, the files that these ids stand for must stay as they are: a later
        start may find the ids.
        """
        if self._in_doubt:
            raise OSError("the ledger has not been repaired")
        lines = [message_id.encode("ascii") for message_id in message_ids]
        data = b"\n".join(lines) + b"\n"
        self._in_doubt = True
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        os.fdatasync(self._file)
        self._in_doubt = False
        self._size += len(data)
        self._ids.update(lines)

    def repair(self) -> None:
        """Take a failed append back, durably. Does nothing when none has failed. Raises OSError."""
        if not self._in_doubt:
            return
        os.ftruncate(self._file, self._size)
        os.fsync(self._file)
        self._in_doubt = False

    def rotate(self) -> None:
        """Begin a new file when it is time, and forget what is too old. Raises OSError; then nothing changed."""
        due = self._now_ms() - self._started_ms >= self._keep_ms // SEGMENTS or len(self._ids) >= MAX_OPEN_IDS
        if self._in_doubt or not due or not self._ids:
            return
        finished = _Closed(self._started_ms, list(self._ids))
        self._begin()
        self._shut(finished)
        self._ids = set()
        self._forget()

    def _shut(self, segment: _Closed) -> None:
        self._closed.append(segment)
        self._last_closed = max(self._last_closed, segment.last)

    def _begin(self) -> None:
        """Open a new file. Its name is later than all others', also when the clock went back."""
        latest = max((segment.started_ms for segment in self._closed), default=0)
        started_ms = max(self._now_ms(), latest + 1, self._started_ms + 1)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        file = os.open(self._path(started_ms), flags, 0o600)
        try:
            self._sync_folder()
        except OSError:
            os.close(file)
            os.unlink(self._path(started_ms))
            raise
        self.close()
        self._file, self._started_ms, self._size = file, started_ms, 0

    def _forget(self) -> None:
        """Remove the files whose last id is older than keep: those whose successor began before that."""
        horizon = self._now_ms() - self._keep_ms
        starts = [*(segment.started_ms for segment in self._closed[1:]), self._started_ms]
        while self._closed and starts[0] <= horizon:
            os.unlink(self._path(self._closed[0].started_ms))
            del self._closed[0], starts[0]

    def _read(self, started_ms: int) -> list[bytes]:
        path = self._path(started_ms)
        with open(path, "r+b") as stream:
            data = stream.read()
            found = _WELL_FORMED.match(data)
            good = found.end() if found else 0
            if good < len(data):
                stream.truncate(good)
                stream.flush()
            # A process that was killed may have written ids that were never synced; from now on they count.
            os.fsync(stream.fileno())
        return data[:good].split(b"\n")[:-1]

    def _path(self, started_ms: int) -> str:
        return os.path.join(self._folder, f"{started_ms}.ids")

    def _sync_folder(self) -> None:
        handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
