"""The logs of a process, by its settings: standard error or a file of its own, and the log of decisions."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from gatepost.core.manifest.settings import LogFileSettings, Settings
from gatepost.telemetry.decisions import keep_decisions
from gatepost.telemetry.logging import configure_logging
from gatepost.telemetry.rotating_file import RotatingFile


@contextlib.contextmanager
def logs(settings: Settings, service: str) -> Iterator[None]:
    """Open the logs, close them at the end. Raises OSError: a file cannot be written or another process has it."""
    telemetry = settings.telemetry
    with contextlib.ExitStack() as stack:
        main = _opened(telemetry.log_file, stack)
        decisions = _opened(telemetry.decision_log, stack)
        configure_logging(telemetry.log_format, telemetry.log_level, service, main)
        keep_decisions(decisions, service)
        stack.callback(keep_decisions, None, service)
        if main is not None:
            # What is logged behind the end of the file still has to be seen somewhere.
            stack.callback(configure_logging, telemetry.log_format, telemetry.log_level, service)
        yield


def _opened(settings: LogFileSettings | None, stack: contextlib.ExitStack) -> RotatingFile | None:
    if settings is None:
        return None
    file = RotatingFile(settings, _complain)
    file.open()
    stack.callback(file.close)
    return file


def _complain(reason: str) -> None:
    """A log that cannot be written can't say so itself."""
    print(f"gatepost: a log file takes no lines, mail goes on: {reason}", file=sys.stderr, flush=True)
