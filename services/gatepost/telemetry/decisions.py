"""Decisions on connections, recipients and messages: a line of the main log each, and of a log of their own.

The decision log (settings: telemetry.decisionLog) has every decision, whatever the main log's level is. Without
one, the main log's lines with a field `decision` are the same.
"""

from __future__ import annotations

from typing import Any, Final

from gatepost.telemetry.logging import JsonLine, tell
from gatepost.telemetry.rotating_file import RotatingFile

ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"  # for good
DISCARDED: Final = "discarded"  # answered with 250 and dropped, as a policy says
DEFERRED: Final = "deferred"  # 4xx: the client comes again


class _Sink:
    """Where the decisions of this process go besides the main log."""

    file: RotatingFile | None = None
    line: JsonLine | None = None


_sink = _Sink()


def keep_decisions(file: RotatingFile | None, service: str) -> None:
    """Write decisions to this open file from now on; None: no longer."""
    _sink.file, _sink.line = file, JsonLine(service) if file is not None else None


def decided(logger: Any, event: str, decision: str, **fields: object) -> None:
    """Tell one decision. `fields` are the facts: never a body, never a secret."""
    tell(logger, event, {"decision": decision, **fields})
    if _sink.file is not None and _sink.line is not None:
        _sink.file.write(_sink.line(None, "info", {"event": event, "decision": decision, **fields}) + b"\n")
