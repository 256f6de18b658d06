"""Where the CPU of each process goes under a load: py-spy's samples as self-time tables.

A sample counts for the function of ours or of a library that was running, whether Python or compiled by mypyc; what
the interpreter and the system do for it is its own. Functions in C of libraries count for who called them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from compiling.modules import COMPILED

PY_SPY: Final = Path(sys.executable).parent / "py-spy"
RATE: Final = 200
SECONDS: Final = 6
END_LIMIT_S: Final = 60
TOP: Final = 10
# mypyc's names: module, class and function with three underscores between them.
_COMPILED: Final = re.compile(r"CPyDef_(\w+) \(gatepost__mypyc")
# Threads that wait for work; py-spy takes one for busy that has just begun to wait.
IDLE: Final = ("_worker (concurrent/futures/thread.py", "Condition.wait (threading.py", "Queue.get (queue.py")


class Profile(msgspec.Struct, frozen=True):
    """The shares of a process's samples: by the function that was running, and by our module that led there."""

    role: str
    samples: int
    functions: list[tuple[str, float]]
    modules: list[tuple[str, float]]


def profile_during(roles: Mapping[str, int], work: Callable[[], object], folder: Path) -> list[Profile]:
    """Sample every Python process while `work` goes on, again and again for SECONDS; only what uses the CPU."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        files = {role: Path(scratch) / role for role in roles}
        spies = [
            subprocess.Popen(
                [
                    *(PY_SPY, "record", "--native", "--format", "raw", "--rate", str(RATE)),
                    *("--duration", str(SECONDS), "--pid", str(pid), "--output", files[role]),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for role, pid in roles.items()
        ]
        while any(spy.poll() is None for spy in spies):
            work()
        for spy in spies:
            spy.wait(END_LIMIT_S)
        return [_read(role, file.read_text()) for role, file in files.items() if file.exists()]


def _read(role: str, text: str) -> Profile:
    functions: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [named for frame in stack.split(";") if (named := _named(frame))]
        if not frames or frames[-1].startswith(IDLE):
            continue
        functions[_short(frames[-1])] += int(count)
        ours = [frame for frame in frames if "gatepost/" in frame and "site-packages" not in frame]
        modules[_module(ours[-1]) if ours else "(library or event loop)"] += int(count)
    total = functions.total() or 1
    return Profile(role, functions.total(), _shares(functions, total), _shares(modules, total))


def _named(frame: str) -> str:
    """`function (path:line)` of a frame of Python or of our machine code, else ""."""
    if ".py:" in frame:
        return frame
    found = _COMPILED.match(frame)
    if found is None:
        return ""
    parts = found.group(1).split("___")
    for length in range(len(parts) - 1, 0, -1):
        ending = f"/{'/'.join(parts[:length])}.py"
        for module in COMPILED:
            if module.endswith(ending):
                return f"{'.'.join(parts[length:])} ({module}:0)"
    return ""


def _shares(counted: Counter[str], total: int) -> list[tuple[str, float]]:
    return [(name, count / total) for name, count in counted.most_common(TOP)]


def _short(frame: str) -> str:
    """`function (path:line)` with the line left out and the path's last two parts."""
    name, _, place = frame.partition(" (")
    path = place.rstrip(")").rpartition(":")[0]
    return f"{name} ({'/'.join(path.split('/')[-2:])})"


def _module(frame: str) -> str:
    path = frame.partition(" (")[2].rstrip(")").rpartition(":")[0]
    return path.rpartition("gatepost/")[2]
