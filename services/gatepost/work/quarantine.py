"""Records that cannot be used are kept for a person to look at; never skipped, never guessed at."""

from __future__ import annotations

from typing import Final

import structlog

from gatepost.core.ports.log import Entry, Record
from gatepost.core.topics import Topics
from gatepost.telemetry import metrics

REASON_HEADER: Final = "reason"
MAX_REASON: Final = 500

_log = structlog.get_logger()


def quarantine_entry(topics: Topics, record: Record, reason: str) -> Entry:
    """Return the record's copy for the quarantine topic, with the reason, and say so."""
    metrics.UNREADABLE.add(record.topic)
    _log.error(
        "work.quarantined",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        reason=reason,
    )
    headers = (*record.headers, (REASON_HEADER, reason.encode("utf-8", "replace")[:MAX_REASON]))
    return Entry(topics.quarantine, record.value, record.key, headers)
