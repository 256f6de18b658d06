"""The benchmarks' count of CPU that no parent sees, as that of Exim's deliveries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.servers

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
CPU_S = 0.5
# A parent that ignores the ends of its children, as Exim's daemon does; it says when the child has ended.
PARENT = f"""
import os, signal, sys, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
sys.stdin.readline()
read, write = os.pipe()
if os.fork() == 0:
    os.close(read)
    begun = time.process_time()
    while time.process_time() - begun < {CPU_S}:
        pass
    os._exit(0)
os.close(write)
os.read(read, 1)
print("ended", flush=True)
sys.stdin.readline()
"""


def test_it_counts_what_a_child_used_that_nobody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    from control_group import ControlGroup

    with ControlGroup("test") as group:
        words = [sys.executable, "-S", "-c", PARENT]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdin is not None
            assert parent.stdout is not None
            group.adopt(parent.pid)
            before = group.cpu_seconds()
            print(file=parent.stdin, flush=True)
            assert parent.stdout.readline() == "ended\n"
            assert group.cpu_seconds() - before >= CPU_S
            print(file=parent.stdin, flush=True)
    del sys.modules["control_group"]
