"""A file of lines that one process has alone, written by a thread of its own and rotated by size and time.

Nobody waits for the disk: lines are handed over, written together some milliseconds later, and dropped and counted
when the disk cannot take them. A line is whole in the file, or not there at all, but for the one that a full disk
cut: the next line then begins anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gatepost.core.manifest.quantities import seconds, size_bytes
from gatepost.core.manifest.settings import LogFileSettings
from gatepost.telemetry import metrics

BUFFER_LINES: Final = 50_000  # some 20 MB: what a disk that hangs for seconds may cost a busy edge
GATHER_S: Final = 0.02  # lines of this time share a call of the system
CLOSE_S: Final = 3.0
COMPLAIN_S: Final = 60.0  # a full disk is told about once a minute, not once a line
LOOK_S: Final = 1.0  # how often somebody else's rotation (logrotate) is looked for
# 1970-01-01 was a Thursday: whole weeks then begin on Mondays.
_MONDAY_S: Final = 4 * 86_400
_STAMP: Final = "%Y%m%dT%H%M%SZ"


class RotatingFile:
    """Takes lines from any thread once open() was called. `complain` is called with a reason, from the thread."""

    def __init__(
        self,
        settings: LogFileSettings,
        complain: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives seconds since 1970."""
        self.path = Path(settings.path)
        self._max_bytes, self._period = size_bytes(settings.max_bytes), seconds(settings.rotate_every)
        self._keep, self._mode, self._group = settings.keep, int(settings.mode, 8), settings.group
        self._complain, self._clock = complain, clock
        self._lines: deque[bytes] = deque()
        self._wake, self._quiet = threading.Event(), threading.Event()
        self._quiet.set()
        self._closing = False
        self._lock = self._handle = -1
        self._size = 0
        self._cut = False
        self._last_write = self._complained = self._looked = 0.0
        self._thread = threading.Thread(target=self._run, name=f"log file {self.path.name}", daemon=True)

    def open(self) -> None:
        """Open or make the file. Raises OSError: it cannot be written, or another process has it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_name(f".{self.path.name}.lock")
        self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise OSError(f"the log file {self.path} is in use by another process: each needs its own") from None
        try:
            self._begin()
        except OSError:
            os.close(self._lock)
            raise
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Hand a line over, with its end. It is dropped when very many wait already."""
        if len(self._lines) >= BUFFER_LINES:
            metrics.LINES_DROPPED.add(self.path.name)
            return
        self._lines.append(line)
        if not self._wake.is_set():
            self._quiet.clear()
            self._wake.set()

    def flush(self) -> None:
        """Nothing: see settle()."""

    def settle(self, limit: float) -> bool:
        """Wait up to `limit` seconds until all that was handed over is written (or dropped)."""
        return self._quiet.wait(limit)

    def close(self) -> None:
        """Write what is left, within CLOSE_S, and give the file up."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            return  # the disk hangs: the thread ends with the process
        for handle in (self._handle, self._lock):
            if handle >= 0:
                os.close(handle)
        self._handle = self._lock = -1

    # -- the thread

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if not self._closing:
                time.sleep(GATHER_S)
            self._wake.clear()
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if lines:
                self._put(lines)
            if not self._lines and not self._wake.is_set():
                self._quiet.set()
            if self._closing and not self._lines:
                return

    def _put(self, lines: list[bytes]) -> None:
        try:
            self._follow_others()
            for batch in self._batches(lines):
                if self._due(batch):
                    self._rotate()
                self._write_out(batch)
                self._last_write = self._clock()
        except OSError as error:
            metrics.LINES_DROPPED.add(self.path.name, by=len(lines))
            self._tell(f"{self.path}: {error.strerror or error}")

    def _batches(self, lines: list[bytes]) -> list[bytes]:
        """As few writes as possible, none larger than a file may be."""
        batches: list[bytes] = []
        batch: list[bytes] = []
        size = 0
        for line in lines:
            if batch and size + len(line) > self._max_bytes:
                batches.append(b"".join(batch))
                batch, size = [], 0
            batch.append(line)
            size += len(line)
        return [*batches, b"".join(batch)]

    def _write_out(self, data: bytes) -> None:
        if self._cut:
            data = b"\n" + data
        done = 0
        while done < len(data):
            try:
                count = os.write(self._handle, data[done:])
            except OSError:
                self._cut = self._cut or (done > 0 and not data[:done].endswith(b"\n"))
                raise
            done += count
            self._size += count
        self._cut = False

    # -- rotation

    def _due(self, data: bytes) -> bool:
        if not self._size:
            return False
        if self._size + len(data) > self._max_bytes:
            return True
        return self._number(self._clock()) != self._number(self._last_write)

    def _number(self, at: float) -> int:
        """Which period a moment belongs to; the file's own time tells it also after a restart."""
        return int((at - _MONDAY_S) // self._period)

    def _rotate(self) -> None:
        stamp = time.strftime(_STAMP, time.gmtime(self._clock()))
        target, number = self.path.with_name(f"{self.path.name}.{stamp}"), 0
        while target.exists():
            number += 1
            target = self.path.with_name(f"{self.path.name}.{stamp}.{number:03}")
        os.rename(self.path, target)
        self._begin()
        pattern = re.compile(rf"{re.escape(self.path.name)}\.\d{{8}}T\d{{6}}Z(\.\d{{3}})?")
        older = sorted(name for name in os.listdir(self.path.parent) if pattern.fullmatch(name))
        for name in older[: -self._keep]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path.parent / name)

    def _begin(self) -> None:
        """Open the file under its name and let go of the one before."""
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if self._group:
                os.fchown(handle, -1, _group_id(self._group))
            os.fchmod(handle, self._mode)  # whatever the umask is
            found = os.fstat(handle)
        except OSError:
            os.close(handle)
            raise
        if self._handle >= 0:
            os.close(self._handle)
        self._handle, self._size, self._last_write, self._cut = handle, found.st_size, found.st_mtime, False
        if not found.st_size:
            self._last_write = self._clock()

    def _follow_others(self) -> None:
        """Begin anew when the file was moved away or removed by somebody else, such as logrotate."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        own = os.fstat(self._handle)
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            self._begin()
            return
        if (there.st_ino, there.st_dev) != (own.st_ino, own.st_dev):
            self._begin()

    def _tell(self, reason: str) -> None:
        now = time.monotonic()
        if not self._complained or now - self._complained >= COMPLAIN_S:
            self._complained = now
            self._complain(reason)


def _group_id(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise OSError(f"there is no group {name!r}") from None
