"""What whole process trees cost: CPU of processes and all that they started, ended ones too, and peak memory.

A tick of /proc is 10 ms. What a process does in less is summed by the kernel all the same, so a difference of
two sums over a tree is wrong by a tick or two for each process, whatever its length.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class _Process(NamedTuple):
    parent: int
    cpu_s: float  # its own and that of its children that have ended and been waited for


def cpu_seconds(roots: Mapping[str, int]) -> dict[str, float]:
    """The CPU seconds of each role's tree since its start, by the process id of its root."""
    processes = dict(_processes())
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    return {
        role: sum(processes[pid].cpu_s for pid in _tree(root, children, processes)) for role, root in roots.items()
    }


def tree(root: int) -> list[int]:
    """The process ids of a tree, the root first."""
    processes = dict(_processes())
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    return list(_tree(root, children, processes))


def _tree(root: int, children: Mapping[int, list[int]], processes: Mapping[int, _Process]) -> Iterator[int]:
    if root in processes:
        yield root
        for child in children.get(root, ()):
            yield from _tree(child, children, processes)


def _processes() -> Iterator[tuple[int, _Process]]:
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            text = Path(f"/proc/{name}/stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # After the name in brackets: state, parent, ...; utime, stime, cutime, cstime are the fields 14 to 17.
        fields = text[text.rindex(b")") + 2 :].split()
        yield int(name), _Process(int(fields[1]), sum(map(int, fields[11:15])) * _TICK_S)


def forget_peak(pid: int) -> None:
    """Let the peak of a process's resident memory begin anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pid: int) -> float:
    """The most that a process had resident since forget_peak, in MiB."""
    return _status_mib(pid, "VmHWM:")


def resident_mib(pid: int) -> float:
    """What a process has resident now, in MiB."""
    return _status_mib(pid, "VmRSS:")


def _status_mib(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise LookupError(f"the kernel tells no {name} of process {pid}")
