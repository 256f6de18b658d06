"""Call-ahead: a domain's recipients are those that the next host takes. What is asked, and what an answer means."""

from __future__ import annotations

from enum import Enum

import msgspec


class CallAheadPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whom a domain asks, in order, as next hops. Times in seconds.

    A yes counts for `positive`, and while no host answers for `stale`; a no for `negative`.
    """

    hosts: tuple[str, ...]
    timeout: float = 10.0
    positive: float = 3600.0
    negative: float = 10.0
    stale: float = 86_400.0


class Answer(Enum):
    YES = "yes"
    NO = "no"
    FAILED = "failed"  # no answer, or one that says nothing about the recipient


def meaning(code: int, enhanced: str) -> Answer:
    """What the reply to RCPT says about a recipient (RFC 5321 4.2.2; RFC 3463 3.3, 3.8).

    A refusal of ourselves (X.7) and a full mailbox (X.2.2) are none of the recipient for good.
    """
    if 200 <= code < 300:
        return Answer.YES
    if not 500 <= code < 600:
        return Answer.FAILED
    subject = enhanced.partition(".")[2]
    return Answer.FAILED if subject.startswith("7.") or subject == "2.2" else Answer.NO
