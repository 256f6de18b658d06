"""Checks `spam` and `virus`: what a scanner beside the gateway said of a message, and what follows.

A scanner decides nothing: what it says is looked up in the policy's `actions`. One that does not answer, or does
not judge a message, is the policy's `onError`; viruses are also let in by scanners that never heard of them, so own
rules on attachments come first and a clean result vouches for nothing.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from gatepost.core.checks.verdict import Verdict
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.ports.scanner import Advice, ScannerAddress, ScannerKind, ScanResult
from gatepost.core.reply import Reply

SPAM: Final = "spam"
VIRUS: Final = "virus"

IS_SPAM: Final = Reply(550, "5.7.1", "this message is taken for spam", SPAM)
IS_SPAM_YET: Final = Reply(451, "4.7.1", "this message is not taken now, please try again later", SPAM)
SPAM_UNKNOWN: Final = Reply(451, "4.7.1", "this message cannot be looked through for spam now", SPAM)
IS_VIRUS: Final = Reply(550, "5.7.1", "this message carries malware", VIRUS)
IS_VIRUS_YET: Final = Reply(451, "4.7.1", "this message seems to carry malware", VIRUS)
VIRUS_UNKNOWN: Final = Reply(451, "4.7.1", "this message cannot be scanned for malware now", VIRUS)
# RFC 3463 3.4: X.3.4, the message is too big for the system.
UNSCANNABLE: Final = Reply(552, "5.3.4", "this message is too large to be scanned for malware", VIRUS)
UNREADABLE: Final = Reply(552, "5.3.4", "this message is too large to be looked through for spam", SPAM)

MAX_NAMES: Final = 30  # of signatures or symbols in an event
MAX_NAME: Final = 80  # characters of each

DEFAULT_ACTIONS: Final[dict[ScannerKind, dict[Advice, Action]]] = {
    ScannerKind.RSPAMD: {
        Advice.NO_ACTION: Action.ACCEPT,
        # rspamd's own greylisting says "soft reject" while a message has to wait; this is only "I would".
        Advice.GREYLIST: Action.ACCEPT,
        Advice.ADD_HEADER: Action.TAG,
        Advice.REWRITE_SUBJECT: Action.TAG,  # no octet of the message is changed
        Advice.SOFT_REJECT: Action.DEFER,
        Advice.QUARANTINE: Action.QUARANTINE,
        Advice.DISCARD: Action.DISCARD,
        Advice.REJECT: Action.REJECT,
        Advice.OTHER: Action.TAG,
    },
    ScannerKind.CLAMD: {Advice.NO_ACTION: Action.ACCEPT, Advice.FOUND: Action.REJECT},
}
DEFAULT_TIMEOUT: Final = {ScannerKind.RSPAMD: 8.0, ScannerKind.CLAMD: 20.0}
DEFAULT_ON_ERROR: Final = {ScannerKind.RSPAMD: OnError.ACCEPT, ScannerKind.CLAMD: OnError.TEMPFAIL}
# clamd's own StreamMaxLength is 25 MB by default; rspamd's max_message 50 MB.
DEFAULT_MAX_SIZE: Final = 25 * 2**20


class ScannerPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """One scanner. `timeout` in seconds, `max_size` in bytes; `actions` by an Advice's value.

    `own_clients`: whether mail of those who log in or may relay is scanned as well.
    """

    where: ScannerAddress
    timeout: float
    on_error: OnError
    max_size: int = DEFAULT_MAX_SIZE
    too_large: Action = Action.TAG
    actions: dict[str, Action] = {}
    own_clients: bool = True

    @property
    def check(self) -> str:
        """Which check this scanner is."""
        return VIRUS if self.where.kind is ScannerKind.CLAMD else SPAM

    def action(self, advice: Advice) -> Action:
        """What follows from what the scanner says; advice that is not this scanner's is only noted."""
        found = self.actions.get(advice.value)
        return found or DEFAULT_ACTIONS[self.where.kind].get(advice, Action.TAG)


class NoResult(Enum):
    """Why there is none. TOO_LARGE: it was above the policy's `maxSize` and not sent."""

    TOO_LARGE = "too large"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    LATE = "late"


Outcome = ScanResult | NoResult


def label(outcome: Outcome) -> str:
    """The outcome in one word or two, for a metric and a trace."""
    return outcome.advice.value if isinstance(outcome, ScanResult) else outcome.value


def evaluate(policy: ScannerPolicy, outcome: Outcome) -> Verdict:
    """Return what follows from a scan; Accept is no verdict against the message."""
    if isinstance(outcome, ScanResult):
        return _judged(policy, outcome)
    facts = {"scanner": policy.where.kind.value, "scan": outcome.value}
    is_virus = policy.check == VIRUS
    if outcome is NoResult.TOO_LARGE:
        permanent = UNSCANNABLE if is_virus else UNREADABLE
        reply = permanent if policy.too_large is Action.REJECT else None
        return Verdict(policy.check, policy.too_large, reply, facts, reason="not scanned, too large")
    reason = f"not scanned, {outcome.value}"
    match policy.on_error:
        case OnError.TEMPFAIL:
            reply = VIRUS_UNKNOWN if is_virus else SPAM_UNKNOWN
            return Verdict(policy.check, Action.DEFER, reply, facts, reason=reason)
        case OnError.ACCEPT:
            return Verdict(policy.check, Action.TAG, None, facts, reason=reason)
        case OnError.IGNORE:
            return Verdict(policy.check, Action.ACCEPT, None, facts, reason=reason)


def _judged(policy: ScannerPolicy, result: ScanResult) -> Verdict:
    action = policy.action(result.advice)
    names = ",".join(_plain(name) for name in result.names[:MAX_NAMES])
    facts = {"scanner": policy.where.kind.value, "scan": result.advice.value, "names": names}
    if result.required:
        facts["required"] = f"{result.required:g}"
    is_virus = policy.check == VIRUS
    replies = {
        Action.REJECT: IS_VIRUS if is_virus else IS_SPAM,
        Action.DEFER: IS_VIRUS_YET if is_virus else IS_SPAM_YET,
    }
    reason = result.advice.value + (f" ({names})" if names else "")
    return Verdict(policy.check, action, replies.get(action), facts, result.score, reason)


def _plain(name: str) -> str:
    """A scanner's word as one word of printable ASCII."""
    return "".join(c if c.isascii() and c.isprintable() and c not in " ,()" else "_" for c in name)[:MAX_NAME]
