"""The CPU of processes that nobody waits for: a control group of their own counts it, whoever their parent is.

Exim's daemon ignores the ends of its children, and what such a child has used is added to no parent (proc(5)).
Every group of the unified hierarchy has cpu.stat, with no controller switched on. Needs root.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

EMPTY_LIMIT_S: Final = 10.0


class ControlGroup:
    """An empty group `gatepost-bench-<name>-<our pid>`, removed in the end; use as a context manager."""

    def __init__(self, name: str) -> None:
        self._folder = _hierarchy() / f"gatepost-bench-{name}-{os.getpid()}"

    def __enter__(self) -> Self:
        self._folder.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Its processes must have been told to end; raises OSError when one is still there after a while."""
        deadline = time.monotonic() + EMPTY_LIMIT_S
        while (self._folder / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        self._folder.rmdir()

    def adopt(self, pid: int) -> None:
        """Take in a process, and with it all that it starts from now on."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def cpu_seconds(self) -> float:
        """What its processes have used since they came, those that have ended included."""
        for line in (self._folder / "cpu.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "usage_usec":
                return int(value) / 1e6
        raise LookupError(f"{self._folder}/cpu.stat tells no usage_usec")


def _hierarchy() -> Path:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise LookupError("no unified control group hierarchy (cgroup2) is mounted: Exim's CPU cannot be counted")
