"""Logs: one line per decision, JSON in pods and readable on a terminal, with host, pid, message and trace id.

On standard error a line is written at once, in one call of the system: what was decided before a kill stands in the
log. In a file of ours (rotating_file.py) it stands some milliseconds later. JSON is made in a single step, since a
decision's line would otherwise cost more than the decision.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog

from gatepost.telemetry.rotating_file import RotatingFile

# Client libraries that repeat themselves while their server is away; the log's own state is logged by us.
_NOISY = ("aiokafka", "kafka", "asyncio", "urllib3", "opentelemetry", "aiohttp.access")
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
    text_out: Any = sys.stderr if file is None else _TextLines(file)
    bytes_out: Any = sys.stderr.buffer if file is None else file
    renderer: Any = (
        # Plain: prettier tracebacks show the values of variables, and so mail and secrets.
        structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback)
        if as_text
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[*shared, renderer] if as_text else [JsonLine(service)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(text_out)
        if as_text
        else structlog.BytesLoggerFactory(bytes_out),
        cache_logger_on_first_use=True,
    )
    if not as_text:
        structlog.contextvars.bind_contextvars(service=service)
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


class _TextLines:
    """Text for a file of lines; a line of many (a traceback) stays together."""

    def __init__(self, file: RotatingFile) -> None:
        self._file, self._begun = file, ""

    def write(self, text: str) -> int:
        self._begun += text
        if self._begun.endswith("\n"):
            self._file.write(self._begun.encode("utf-8", "backslashreplace"))
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
