"""Logs: one line per decision, JSON in pods and readable on a terminal, with message and trace id.

A line is written at once, in one call of the system: what was decided before a kill stands in the log. JSON is made
in a single step, since a decision's line would otherwise cost more than the decision.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog

# Client libraries that repeat themselves while their server is away; the log's own state is logged by us.
_NOISY = ("aiokafka", "kafka", "asyncio", "urllib3", "opentelemetry", "aiohttp.access")
_LEVELS: Final = {"warn": "warning", "exception": "error"}


def configure_logging(log_format: str, level: str, service: str) -> None:
    """Set up structlog and the standard library's logging, both to standard error.

    `log_format`: json, text, or auto (text on a terminal). `level`: debug, info, warning, error.
    """
    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    number = getattr(logging, level.upper(), logging.INFO)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if as_text
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[*shared, renderer] if as_text else [JsonLine(service)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr)
        if as_text
        else structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    if not as_text:
        structlog.contextvars.bind_contextvars(service=service)
    handler = logging.StreamHandler(sys.stderr)
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


class JsonLine:
    """The one processor of JSON logging: an event and its fields become a line of UTF-8 without its end."""

    def __init__(self, service: str, now_ns: Callable[[], int] = time.time_ns) -> None:
        """`now_ns` gives ns since 1970."""
        self._service, self._now_ns = service, now_ns
        self._second = -1
        self._until_second = ""
        self._encoder = msgspec.json.Encoder(enc_hook=repr)

    def __call__(self, logger: object, method: str, fields: structlog.typing.EventDict) -> bytes:
        if "exc_info" in fields:
            structlog.processors.format_exc_info(logger, method, fields)
        fields.setdefault("service", self._service)
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
