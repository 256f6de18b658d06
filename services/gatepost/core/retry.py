"""When a copy is tried again, and when it is given up (RFC 5321 4.5.4.1)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gatepost.core.configuration import RetryPlan
from gatepost.core.envelope import Deferral, Envelope, Recipient
from gatepost.core.tables import Tables
from gatepost.core.topics import RETRY_TIERS


class TryAgain(msgspec.Struct, frozen=True):
    """Append to the retry topic of this tier."""

    tier: str


class GiveUp(msgspec.Struct, frozen=True):
    """The copy is too old: a DSN with status 4.4.7 (RFC 3463 3.5)."""

    age_s: float


def plan_for(tables: Tables | None, reverse_path: str) -> RetryPlan:
    """The plan of the sender's domain when it is ours, else the default one."""
    if tables is not None and reverse_path:
        config = tables.domain(reverse_path.rpartition("@")[2])
        if config is not None:
            return config.retry
    return RetryPlan()


def next_attempt(plan: RetryPlan, envelope: Envelope, now_ms: int) -> TryAgain | GiveUp:
    """Decide after one more failed attempt of this copy.

    It is given up when the attempt after this one would come too late.
    """
    attempts = envelope.deferral.attempts if envelope.deferral else 0
    tier = plan.tiers[min(attempts, len(plan.tiers) - 1)]
    limit = plan.bounce_expire_after if envelope.is_bounce else plan.expire_after
    age = (now_ms - envelope.received_ms) / 1000
    if age + RETRY_TIERS[tier] > limit:
        return GiveUp(age)
    return TryAgain(tier)


def time_left(appended_ms: int, now_ms: int, wait_s: int) -> float:
    """Seconds until a record of a tier that waits `wait_s` is due: at most that, also when the clock was set back.

    A clock that was set forward makes it due early, which costs an attempt.
    """
    return min(max(0.0, (appended_ms - now_ms) / 1000 + wait_s), float(wait_s))


def deferred(
    envelope: Envelope,
    recipients: Iterable[Recipient],
    return_topic: str,
    reply: str,
    remote: str,
    now_ms: int,
    *,
    attempted: bool = True,
) -> Envelope:
    """Return the envelope of the copy for these recipients on its way into a retry topic.

    `attempted` False: it was put aside without a try (a busy site), which does not move it to a later tier.
    """
    before = envelope.deferral or Deferral(first_ms=now_ms)
    deferral = Deferral(
        attempts=before.attempts + (1 if attempted else 0),
        first_ms=before.first_ms,
        last_reply=reply[:500],
        remote=remote,
        return_topic=return_topic,
    )
    return msgspec.structs.replace(envelope, recipients=tuple(recipients), deferral=deferral)
