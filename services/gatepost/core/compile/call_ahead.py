"""recipients.source CallAhead -> CallAheadPlan: every host tried, defaults filled in."""

from __future__ import annotations

from typing import Final

from gatepost.core.call_ahead import CallAheadPlan
from gatepost.core.compile.conditions import ACCEPTED, Rejection
from gatepost.core.compile.values import checked, duration
from gatepost.core.hosts import parse_host
from gatepost.core.manifest.call_ahead import CallAheadCache, CallAheadSource
from gatepost.core.manifest.mail_domain import UnknownAction

MAX_TIMEOUT: Final = 30.0  # a client waits 5 minutes for a reply to RCPT (RFC 5321 4.5.3.2.3), many for 30 s
MAX_POSITIVE: Final = 86_400.0
MAX_NEGATIVE: Final = 30.0
MAX_STALE: Final = 168 * 3600.0

_FIELD: Final = "spec.recipients.source"


def call_ahead_plan(source: CallAheadSource, unknown: UnknownAction) -> CallAheadPlan:
    """Return whom to ask. Raises Rejection."""
    if unknown not in (UnknownAction.REJECT, UnknownAction.BOUNCE):
        raise Rejection(
            ACCEPTED,
            "Invalid",
            "spec.recipients.unknown",
            f"{unknown.value} cannot be had with source CallAhead: only the next host knows who is unknown",
        )
    hosts = checked(source.hosts, parse_host, f"{_FIELD}.hosts")
    base, cache = CallAheadPlan(()), source.cache or CallAheadCache()
    positive = _seconds(cache.positive, base.positive, "cache.positive", MAX_POSITIVE)
    return CallAheadPlan(
        hosts,
        _seconds(source.timeout, base.timeout, "timeout", MAX_TIMEOUT),
        positive,
        _seconds(cache.negative, base.negative, "cache.negative", MAX_NEGATIVE),
        _seconds(cache.stale, max(base.stale, positive), "cache.stale", MAX_STALE),
    )


def _seconds(text: str | None, default: float, field: str, most: float) -> float:
    if text is None:
        return default
    return duration(text, f"{_FIELD}.{field}", 1.0, most)
