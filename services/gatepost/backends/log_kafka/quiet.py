"""The client libraries' own log lines, at a rate that a person can read: while a broker is away they write ten a
second."""

from __future__ import annotations

import logging
import time
from typing import Final

# The same message of the same place comes again after this many seconds at the earliest.
INTERVAL: Final = 30.0

# Where librdkafka's lines go; its arguments are a facility (FAIL, GETPID), the client's name, and the text.
LIBRDKAFKA: Final = "librdkafka"

_LOGGERS: Final = (
    "aiokafka",
    "aiokafka.abc",
    "aiokafka.admin.client",
    "aiokafka.client",
    "aiokafka.cluster",
    "aiokafka.conn",
    "aiokafka.consumer.consumer",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.consumer.subscription_state",
    "aiokafka.coordinator.assignors.abstract",
    LIBRDKAFKA,
)


class Once(logging.Filter):
    """Lets a message (before its arguments are put in; of librdkafka's a facility) pass once per INTERVAL."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        place = (record.name, str(record.msg))
        if record.name == LIBRDKAFKA and isinstance(record.args, tuple) and record.args:
            place = (record.name, str(record.args[0]))
        if now - self._last.get(place, -INTERVAL) < INTERVAL:
            return False
        self._last[place] = now
        return True


_filter: Final = Once()


def quieten() -> None:
    """Limit all of their loggers (a filter is not inherited); calling it again changes nothing."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_filter)
