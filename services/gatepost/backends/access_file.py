"""Access tables in files: of one machine, or of a ConfigMap or Secret that is mounted. Read again on change.

A version that cannot be used is told once, with file, line and reason, and the version before it stays in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from gatepost.core.access.entry import AccessError
from gatepost.core.access.source import read_table
from gatepost.core.access.table import AccessTable
from gatepost.telemetry import metrics
from gatepost.telemetry.lasting import lasting

MAX_BYTES: Final = 64 * 2**20  # a million rules; what is larger is another kind of file

_Stamp = tuple[int, int, int, int]
_log = structlog.get_logger("gatepost.access")


def read_access_file(path: Path) -> AccessTable:
    """Read and compile a file; blocks. Raises AccessError with file, line and reason."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise AccessError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise AccessError(f"{path}: larger than {MAX_BYTES // 2**20} MiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AccessError(f"{path} line {line}: not UTF-8") from None
    return AccessTable(read_table(text, str(path)))


class _File:
    """One table that is looked after; `due` is when it is looked at next, by the loop's clock."""

    def __init__(self, path: Path, every: float) -> None:
        self.path, self.every = path, every
        self.due = 0.0
        self.stamp: _Stamp | None = None
        self.told = ""
        self.table: AccessTable | None = None


class AccessFiles:
    """core.ports.access_tables.AccessTables over files. `base` is the folder that relative names start from."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._files: dict[str, _File] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._task is None:
            self._task = lasting("access-files", self._watch)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def want(self, tables: Mapping[str, float]) -> None:
        known = self._files
        self._files = {name: known.get(name) or _File(self._base / name, every) for name, every in tables.items()}
        for name, every in tables.items():
            self._files[name].every = every
            self._files[name].due = 0.0
        self._wake.set()

    def table(self, file: str) -> AccessTable | None:
        found = self._files.get(file)
        return None if found is None else found.table

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            changed = False
            for file in list(self._files.values()):
                if file.due <= loop.time():
                    file.due = loop.time() + file.every
                    changed = await self._look(file) or changed
            if changed:
                self._tell()
            next_due = min((file.due for file in self._files.values()), default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_due):
                    await self._wake.wait()

    def _tell(self) -> None:
        for callback in self._callbacks:
            try:
                callback()
            except Exception:
                _log.exception("internal error while putting an access table in force")

    async def _look(self, file: _File) -> bool:
        """Read a file that has changed; True when there is a new version."""
        try:
            stamp = await asyncio.to_thread(_stamp, file.path)
            if stamp == file.stamp:
                return False
            file.stamp = stamp  # noted before the reading, so that a change meanwhile is seen at the next look
            table = await asyncio.to_thread(read_access_file, file.path)
        except AccessError as error:
            self._refused(file, str(error))
            return False
        except OSError as error:
            file.stamp = None
            self._refused(file, f"{file.path}: cannot be read: {error.strerror}")
            return False
        except Exception:
            _log.exception("internal error while reading an access table", file=str(file.path))
            return False
        file.table, file.told = table, ""
        _log.info("access.loaded", file=str(file.path), rules=table.size)
        metrics.ACCESS_TABLE_RULES.set(table.size, str(file.path))
        return True

    def _refused(self, file: _File, reason: str) -> None:
        """Told once for each fault, not at each look."""
        if file.told == reason:
            return
        file.told = reason
        metrics.ACCESS_TABLE_REFUSED.add(str(file.path))
        kept = "the version read before" if file.table is not None else "none: there was no good version yet"
        _log.error("access.refused", file=str(file.path), reason=reason, in_use=kept)


def _stamp(path: Path) -> _Stamp:
    """What changes with a file's content; a ConfigMap's link leads to another inode."""
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
