"""Lines on standard error: what is told of every message shares a call with its neighbours, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from gatepost.telemetry.lines import GatheredLines
from gatepost.telemetry.logging import tell


class Calls:
    """A stream that remembers each call."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def flush(self) -> None:
        pass


async def test_lines_of_one_round_are_written_in_one_call() -> None:
    stream = Calls()
    lines = GatheredLines(stream)
    lines.gather(b"one\n")
    lines.gather(b"two\n")
    assert stream.writes == []
    await asyncio.sleep(0)
    assert stream.writes == [b"one\ntwo\n"]
    lines.gather(b"three\n")
    await asyncio.sleep(0)
    assert stream.writes == [b"one\ntwo\n", b"three\n"]


async def test_a_line_that_is_flushed_takes_along_what_came_before_it() -> None:
    stream = Calls()
    lines = GatheredLines(stream)
    lines.gather(b"accepted\n")
    lines.write(b"warning\n")
    lines.flush()
    assert stream.writes == [b"accepted\nwarning\n"]
    await asyncio.sleep(0)
    assert stream.writes == [b"accepted\nwarning\n"]


def test_without_a_loop_a_line_is_written_at_once() -> None:
    stream = Calls()
    GatheredLines(stream).gather(b"one\n")
    assert stream.writes == [b"one\n"]


def test_a_loop_that_ended_before_its_round_did_keeps_no_later_line_back() -> None:
    """Nothing that is flushed comes to help: only the next loop's own round."""
    stream = Calls()
    lines = GatheredLines(stream)
    loop = asyncio.new_event_loop()
    loop.call_soon(lines.gather, b"one\n")
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert stream.writes == []

    async def next_round() -> None:
        lines.gather(b"two\n")
        await asyncio.sleep(0)
        assert stream.writes == [b"one\ntwo\n"]

    asyncio.run(next_round())


def test_whoever_speaks_in_the_midst_of_a_flush_waits_for_nobody() -> None:
    """As an object does that is collected meanwhile (a task whose exception nobody asked for)."""

    class Talkative(Calls):
        def write(self, data: bytes) -> None:
            super().write(data)
            if len(self.writes) == 1:
                lines.write(b"two\n")
                lines.flush()

    stream = Talkative()
    lines = GatheredLines(stream)
    lines.write(b"one\n")
    flushing = threading.Thread(target=lines.flush, daemon=True)
    flushing.start()
    flushing.join(10)
    assert not flushing.is_alive()
    assert stream.writes == [b"one\n", b"two\n"]


async def test_threads_lose_no_line() -> None:
    stream = Calls()
    lines = GatheredLines(stream)

    def write(number: int) -> None:
        for count in range(500):
            lines.write(b"%d %d\n" % (number, count))
            lines.flush()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for count in range(500):
        lines.gather(b"loop %d\n" % count)
        await asyncio.sleep(0)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    lines.flush()
    assert len(b"".join(stream.writes).splitlines()) == 2000


_RUN = """
import asyncio, logging
import structlog
from gatepost.telemetry.logging import configure_logging, tell

configure_logging("json", "{level}", "edge")
log = structlog.get_logger("gatepost.edge")


async def main():
    tell(log, "accepted", {{"id": "1"}})
    log.info("accepted", id="2")
    tell(log, "accepted", {{"id": "3"}})
    logging.getLogger("elsewhere").error("4")
    tell(log, "accepted", {{"id": "5"}})
    raise SystemExit(3)

asyncio.run(main())
"""


def run(level: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", _RUN.format(level=level)], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 3, done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_all_lines_stand_in_order_also_when_the_process_ends_at_once() -> None:
    lines = run("info")
    assert [line.get("id", line["event"]) for line in lines] == ["1", "2", "3", "4", "5"]
    told, logged = lines[0], lines[1]
    assert set(told) == set(logged)
    assert told["level"] == logged["level"] == "info"


def test_a_level_that_is_not_wanted_is_not_told() -> None:
    assert [line["event"] for line in run("warning")] == ["4"]


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_whoever_looks_at_what_is_logged_sees_it(level: int) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
    try:
        with capture_logs() as seen:
            tell(structlog.get_logger(), "accepted", {"id": "1"})
    finally:
        structlog.reset_defaults()
    assert seen == [{"event": "accepted", "id": "1", "log_level": "info"}]
