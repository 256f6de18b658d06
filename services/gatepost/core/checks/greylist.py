"""Check `greylist`: who has not written before is asked to come again, which spam programs do not.

Remembered is the triple of client network, reverse-path and recipient, as postgrey and rspamd do. With the
recipient's domain instead, the first guess at any name there would open the way to all others a few minutes later;
the price, one delay for each pair of correspondents, falls away for a network that has come back MOST_PROOFS times.
Of the reverse-path numbers and details do not count, since lists write a new one for each message (VERP).

    new          nothing is remembered: 450, and `delay` begins
    early        it came again before `delay` was over: 450, nothing begins anew
    passed       it came again in time: taken, and known for `keep` from each message on
    known        taken
"""

from __future__ import annotations

import hashlib
import re
from enum import Enum
from typing import Final

import msgspec

from gatepost.core.ports.state import Kind
from gatepost.core.reply import Reply

CHECK: Final = "greylist"
GREYLISTED: Final = Reply(450, "4.7.1", "you have not written here before, please try again later", CHECK)

# Of all edges together, about 300 bytes each: 60 MB. When there are more, those that were written first go, so a
# flood costs the newest correspondents another delay and no mail.
MOST: Final = 200_000
# A server that queues comes back within hours (RFC 5321 4.5.4.1); after this it begins anew.
RETRY_WINDOW: Final = 48 * 3600.0
# So many correspondents of one network came back: it queues, and is not asked again (postgrey's default as well).
MOST_PROOFS: Final = 5
# A known entry is written again when so much of its time is over, not at each message.
_RENEW_AFTER: Final = 0.1

_NUMBERS: Final = re.compile(r"[0-9]+")


class GreylistPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """Times in seconds. Defaults as postgrey's: 5 minutes, 35 days."""

    delay: float = 300.0
    keep: float = 3_024_000.0
    ipv4_prefix: int = 24
    ipv6_prefix: int = 64


class Grey(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is remembered of a triple, or of a network. `since_ms`: first seen, once it is `known`: last renewed.

    `proofs`: how many of a network's triples have come back.
    """

    since_ms: int
    known: bool = False
    proofs: int = 0


GREYLIST: Final[Kind[Grey]] = Kind("greylist", Grey, 1, MOST)


class Outcome(Enum):
    NEW = "new"
    EARLY = "early"
    PASSED = "passed"
    KNOWN = "known"


class Judgement(msgspec.Struct, frozen=True):
    """`wait`: for how many seconds more it is not taken. `remember` until `until_ms`, when something changes."""

    outcome: Outcome
    wait: int = 0
    remember: Grey | None = None
    until_ms: int = 0


def key(network: str, reverse_path: str, recipient: str) -> str:
    """The triple's key in the shared memory: a hash, so that it is short and tells nobody who writes to whom."""
    triple = "\0".join((network, _plain(reverse_path), recipient.lower()))
    return hashlib.sha256(triple.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def network_key(network: str) -> str:
    """The key under which a network's proofs are counted."""
    return f"net:{network}"


def evaluate(policy: GreylistPolicy, known: Grey | None, now_ms: int) -> Judgement:
    """Judge a triple by what is remembered of it."""
    if known is None:
        return Judgement(
            Outcome.NEW, _seconds(policy.delay), Grey(now_ms), now_ms + int((policy.delay + RETRY_WINDOW) * 1000)
        )
    if known.known:
        due = now_ms - known.since_ms > policy.keep * 1000 * _RENEW_AFTER
        return Judgement(Outcome.KNOWN, 0, Grey(now_ms, known=True) if due else None, _kept(policy, now_ms))
    # A clock that was set back must not keep anybody out for longer than the delay.
    left = min(policy.delay, policy.delay - (now_ms - known.since_ms) / 1000)
    if left > 0:
        return Judgement(Outcome.EARLY, _seconds(left))
    return Judgement(Outcome.PASSED, 0, Grey(now_ms, known=True), _kept(policy, now_ms))


def prove(policy: GreylistPolicy, known: Grey | None, now_ms: int) -> tuple[Grey, int]:
    """Count one more triple of a network that has come back; return what to remember and until when."""
    return Grey(now_ms, proofs=(known.proofs if known else 0) + 1), _kept(policy, now_ms)


def is_proven(known: Grey | None) -> bool:
    """Whether a network needs no more proofs."""
    return known is not None and known.proofs >= MOST_PROOFS


def answer(judgement: Judgement) -> Reply:
    """The refusal, with the seconds."""
    return msgspec.structs.replace(
        GREYLISTED, text=f"you have not written here before, please try again in {judgement.wait} seconds"
    )


def _plain(reverse_path: str) -> str:
    local, at, domain = reverse_path.lower().rpartition("@")
    return f"{_NUMBERS.sub('#', local.partition('+')[0])}{at}{domain}"


def _kept(policy: GreylistPolicy, now_ms: int) -> int:
    return now_ms + int(policy.keep * 1000)


def _seconds(value: float) -> int:
    """Rounded up: whoever waits so long has waited long enough."""
    return max(1, -int(-value // 1))
