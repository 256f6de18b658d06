"""Logs: one line per decision, JSON in pods and readable on a terminal, with message and trace id."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

# Client libraries that repeat themselves while their server is away; the log's own state is logged by us.
_NOISY = ("aiokafka", "kafka", "asyncio", "urllib3", "opentelemetry", "aiohttp.access")


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
        processors=[*shared, structlog.processors.format_exc_info, renderer]
        if not as_text
        else [*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    if not as_text:
        structlog.contextvars.bind_contextvars(service=service)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING if number > logging.DEBUG else number)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
