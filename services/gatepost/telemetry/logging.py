"""Logs: one line per decision, JSON in pods and readable on a terminal, with host, pid, message and trace id.

On standard error a line is written at once, and what is told of every message at the end of the event loop's round:
what was decided before a kill stands in the log, but for the last fraction of a millisecond. In a file of ours
(rotating_file.py) it stands some milliseconds later. JSON is made in a single step, since a decision's line would
otherwise cost more than the decision.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import structlog

from gatepost.telemetry.lines import GatheredLines
from gatepost.telemetry.rotating_file import RotatingFile

# Client libraries that repeat themselves while their server is away; the log's own state is logged by us.
_NOISY = ("aiokafka", "librdkafka", "asyncio", "urllib3", "opentelemetry", "aiohttp.access")
_LEVELS: Final = {"warn": "warning", "exception": "error"}


def configure_logging(log_format: str, level: str, service: str, file: RotatingFile | None = None) -> None:
    """Set up structlog and the standard library's logging, both to standard error or to an open file.

    `log_format`: json, text, or auto (text on a terminal). `level`: debug, info, warning, error.
    """
    terminal = file is None and sys.stderr.isatty()
    as_text = log_format == "text" or (log_format == "auto" and terminal)
    number = getattr(logging, level.upper(), logging.INFO)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Whoever sits at a terminal knows which machine it is.
        *([] if terminal else [_where]),
    ]
    gathered = None if as_text or file is not None else GatheredLines(sys.stderr.buffer)
    bytes_out: Any = gathered or file
    text_out: Any = _TextLines(bytes_out) if bytes_out is not None else sys.stderr
    renderer: Any = (
        # Plain: prettier tracebacks show the values of variables, and so mail and secrets.
        structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback)
        if as_text
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    processors = [*shared, renderer] if as_text else [JsonLine(service)]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(text_out)
        if as_text
        else structlog.BytesLoggerFactory(bytes_out),
        cache_logger_on_first_use=True,
    )
    _short.processors, _short.put = (), None
    if not as_text:
        structlog.contextvars.bind_contextvars(service=service)
        if number <= logging.INFO:
            _short.processors, _short.line = processors, processors[0]
            _short.put = bytes_out.write if gathered is None else gathered.gather
    handler = logging.StreamHandler(text_out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([] if as_text else [structlog.processors.format_exc_info]),
                renderer,
            ],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING if number > logging.DEBUG else number)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)


def tell(logger: Any, event: str, fields: dict[str, object]) -> None:
    """Log at level info what is told of every message: logger.info's line by a shorter way, where lines are JSON.

    `fields` is the caller's no longer.
    """
    line, put = _short.line, _short.put
    # Somebody else's processors are in place while a test looks at what is logged.
    if put is None or _short.processors[0] is not line:
        logger.info(event, **fields)
        return
    fields["event"] = event
    put(line(logger, "info", fields) + b"\n")


class _Short:
    """The shorter way of this process; none where lines are text, or those of level info are not wanted."""

    processors: Sequence[Any] = ()
    line: Any = None
    put: Callable[[bytes], object] | None = None


_short = _Short()


class _TextLines:
    """Text for lines of bytes; a line of many (a traceback) stays together."""

    def __init__(self, file: RotatingFile | GatheredLines) -> None:
        self._file, self._begun = file, ""

    def write(self, text: str) -> int:
        self._begun += text
        if self._begun.endswith("\n"):
            self._file.write(self._begun.encode("utf-8", "backslashreplace"))
            self._file.flush()
            self._begun = ""
        return len(text)

    def flush(self) -> None:
        """Nothing: the file writes by itself."""


def _where(logger: object, method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    fields["host"], fields["pid"] = socket.gethostname(), os.getpid()
    return fields


class JsonLine:
    """The one processor of JSON logging: an event and its fields become a line of UTF-8 without its end."""

    def __init__(self, service: str, now_ns: Callable[[], int] = time.time_ns) -> None:
        """`now_ns` gives ns since 1970."""
        self._service, self._now_ns = service, now_ns
        self._host, self._pid = socket.gethostname(), os.getpid()
        self._second = -1
        self._until_second = ""
        self._encoder = msgspec.json.Encoder(enc_hook=repr)

    def __call__(self, logger: object, method: str, fields: structlog.typing.EventDict) -> bytes:
        if "exc_info" in fields:
            structlog.processors.format_exc_info(logger, method, fields)
        fields.setdefault("service", self._service)
        fields["host"], fields["pid"] = self._host, self._pid
        fields["level"] = _LEVELS.get(method, method)
        fields["timestamp"] = self._timestamp()
        try:
            return self._encoder.encode(fields)
        except (TypeError, ValueError, OverflowError):
            # Text that is no Unicode (bytes of a client kept as surrogates), or a huge number.
            return json.dumps(fields, default=repr).encode("ascii")

    def _timestamp(self) -> str:
        second, ns = divmod(self._now_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._until_second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._until_second}.{ns // 1000:06d}Z"
