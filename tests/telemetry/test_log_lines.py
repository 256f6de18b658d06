"""A log line is one JSON object with all that it needs, whatever text a client has sent."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from gatepost.telemetry.logging import JsonLine

NOW_NS = 1_800_000_000_123_456_789


def line(method: str = "info", **fields: Any) -> dict[str, Any]:
    text = JsonLine("edge", lambda: NOW_NS)(None, method, fields)
    assert b"\n" not in text
    made: dict[str, Any] = json.loads(text)
    return made


def test_time_level_and_service_stand_in_every_line() -> None:
    assert line(event="accepted", id="x", seconds=0.5) == {
        "event": "accepted",
        "id": "x",
        "seconds": 0.5,
        "service": "edge",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "level": "info",
        "timestamp": "2027-01-15T08:00:00.123456Z",
    }


@pytest.mark.parametrize(("method", "level"), [("exception", "error"), ("warn", "warning"), ("error", "error")])
def test_levels_have_one_name(method: str, level: str) -> None:
    assert line(method)["level"] == level


@pytest.mark.parametrize("value", ["a\udcffb", "line\r\nbreak", 'quote " \\', "\x00\x1f", 2**80, "\u2028"])
def test_text_of_a_client_cannot_break_a_line(value: object) -> None:
    assert line(helo=value)["helo"] == value


def test_what_json_does_not_know_is_shown_as_it_prints() -> None:
    assert line(what=ValueError("x"))["what"] == "ValueError('x')"


def test_an_exception_is_written_out() -> None:
    try:
        raise RuntimeError("for the test")
    except RuntimeError:
        made = line("exception", event="oops", exc_info=True)
    assert "RuntimeError: for the test" in made["exception"]
    assert "exc_info" not in made


_RAISE = """
import structlog
from gatepost.telemetry.logging import configure_logging

configure_logging("text", "info", "edge")


def deliver(message):
    raise RuntimeError("for the test")


try:
    deliver("the words of a mail")
except RuntimeError:
    structlog.get_logger().exception("oops")
"""


def test_text_for_people_shows_no_values_of_variables() -> None:
    """They would hold mail and passwords. Another process, since logging is set up once for each."""
    done = subprocess.run([sys.executable, "-c", _RAISE], capture_output=True, text=True, check=True, timeout=60)
    assert "RuntimeError: for the test" in done.stderr
    # The source line that made the call is shown once; the value of `message` is not.
    assert done.stderr.count("the words of a mail") <= done.stderr.count('deliver("the words of a mail")')
