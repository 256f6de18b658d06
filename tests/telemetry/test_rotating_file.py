"""Log files: rotated by size and time, kept in number, for one process alone, and never in mail's way."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from gatepost.core.manifest.settings import LogFileSettings
from gatepost.telemetry import metrics
from gatepost.telemetry.decisions import decided, keep_decisions
from gatepost.telemetry.rotating_file import BUFFER_LINES, RotatingFile

WAIT_S = 10.0
MONDAY = 1_790_553_600.0  # 2026-09-28 00:00 UTC


class Clock:
    now = MONDAY + 3600

    def __call__(self) -> float:
        return self.now


class Files:
    """Makes log files in one folder and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, Clock()
        self.complaints: list[str] = []
        self._open: list[RotatingFile] = []

    def __call__(self, **settings: Any) -> RotatingFile:
        made = RotatingFile(
            LogFileSettings(str(self.folder / "logs/decisions.log"), **settings),
            self.complaints.append,
            clock=self.clock,
        )
        made.open()
        self._open.append(made)
        return made

    def put(self, file: RotatingFile, *lines: str) -> None:
        for line in lines:
            file.write(line.encode() + b"\n")
        assert file.settle(WAIT_S)

    def older(self) -> list[Path]:
        return sorted((self.folder / "logs").glob("decisions.log.2*"))

    def close(self) -> None:
        for file in self._open:
            file.close()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    made = Files(tmp_path)
    yield made
    made.close()


@pytest.mark.requirement("S2-30")
def test_a_file_that_is_full_is_put_aside_and_the_oldest_go(files: Files) -> None:
    """Fails without rotation at the size, a time in the name of each older file, and their number being kept."""
    own = files(max_bytes="64Ki", keep=2)
    for number in range(5):
        files.clock.now += 1
        files.put(own, f"{number}" * 60_000)
    assert own.path.read_text() == "4" * 60_000 + "\n"
    assert [path.read_text()[0] for path in files.older()] == ["2", "3"]
    assert all(path.name.endswith("Z") for path in files.older())


def test_files_of_the_same_second_do_not_overwrite_each_other(files: Files) -> None:
    own = files(max_bytes="64Ki", keep=10)
    for number in range(4):
        files.put(own, f"{number}" * 60_000)
    assert [path.read_text()[0] for path in files.older()] == ["0", "1", "2"]


def test_a_new_week_is_a_new_file_also_after_a_restart(files: Files) -> None:
    own = files()
    os.utime(own.path, (files.clock.now, files.clock.now))
    files.put(own, "this week")
    own.close()
    os.utime(own.path, (files.clock.now, files.clock.now))
    files.clock.now += 5 * 86_400
    again = files()
    files.put(again, "still this week")
    assert files.older() == []
    files.clock.now = MONDAY + 7 * 86_400 + 1
    files.put(again, "next week")
    (older,) = files.older()
    assert older.read_text() == "this week\nstill this week\n"
    assert own.path.read_text() == "next week\n"


def test_mode_does_not_depend_on_the_umask(files: Files) -> None:
    before = os.umask(0o077)
    try:
        own = files()
    finally:
        os.umask(before)
    assert stat.S_IMODE(own.path.stat().st_mode) == 0o640


def test_a_second_process_is_told_so(files: Files) -> None:
    files()
    with pytest.raises(OSError, match="in use by another process"):
        files()


def test_an_unknown_group_is_an_error_at_the_start(files: Files) -> None:
    with pytest.raises(OSError, match="no group 'nonsense'"):
        files(group="nonsense")
    files()


def test_what_somebody_else_moved_away_is_begun_anew(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatepost.telemetry.rotating_file.LOOK_S", 0.0)
    own = files()
    files.put(own, "one")
    own.path.rename(own.path.with_name("by-logrotate.1"))
    files.put(own, "two")
    assert own.path.read_text() == "two\n"
    assert own.path.with_name("by-logrotate.1").read_text() == "one\n"


def test_a_full_disk_drops_lines_and_says_so_once(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    own = files()
    before = metrics.LINES_DROPPED.values.get(("decisions.log",), 0)
    real, room = os.write, [3, None]

    def write(handle: int, data: bytes) -> int:
        left = room.pop(0) if room else None
        if left is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data[:left])

    with monkeypatch.context() as patched:
        patched.setattr("gatepost.telemetry.rotating_file.os.write", write)
        files.put(own, "first")
        files.put(own, "second")
    files.put(own, "third")
    assert own.path.read_text() == "fir\nthird\n"
    assert metrics.LINES_DROPPED.values["decisions.log",] == before + 2
    assert files.complaints == [f"{own.path}: No space left on device"]


def test_a_disk_that_hangs_costs_lines_not_memory(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    own = files()
    before = metrics.LINES_DROPPED.values.get(("decisions.log",), 0)
    monkeypatch.setattr(own, "_wake", own._quiet)  # the thread never hears of these
    for _ in range(BUFFER_LINES + 7):
        own.write(b"x\n")
    assert metrics.LINES_DROPPED.values["decisions.log",] == before + 7


@pytest.mark.requirement("S2-31")
def test_decisions_have_a_log_of_their_own(files: Files) -> None:
    """Fails without a line for each decision in the decision log, mode 0640, whatever the main log's level is."""
    own = files()
    keep_decisions(own, "edge")
    try:
        quiet = structlog.make_filtering_bound_logger(40)(None, [], {})
        decided(quiet, "refused", "deferred", client="192.0.2.1", check="greylist", id="X")
        decided(quiet, "accepted", "accepted", client="192.0.2.2", id="Y")
    finally:
        keep_decisions(None, "edge")
    decided(quiet, "accepted", "accepted", id="Z")
    assert own.settle(WAIT_S)
    lines = [json.loads(line) for line in own.path.read_text().splitlines()]
    assert [(line["decision"], line["id"]) for line in lines] == [("deferred", "X"), ("accepted", "Y")]
    assert all(line["timestamp"].endswith("Z") and line["host"] and line["pid"] for line in lines)
    assert stat.S_IMODE(own.path.stat().st_mode) == 0o640
