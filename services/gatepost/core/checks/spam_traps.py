"""Check `spam-trap`: an address that no person ever gave to anybody; whoever writes to it collects addresses.

The trap is taken at RCPT, so that nobody learns by the reply which address it is; behind the final dot the message
is refused for all its recipients. Bans have safeguards, for a trap can be written to on purpose to get a competitor
banned: a client that an administrator or a list of the good vouches for never is, and a sender only when SPF or
DKIM proves that it was it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gatepost.core.checks.verdict import Verdict
from gatepost.core.envelope import Trust
from gatepost.core.manifest.actions import Action
from gatepost.core.reply import Reply

CHECK: Final = "spam-trap"

TRAPPED: Final = Reply(550, "5.7.1", "this message is not wanted here", CHECK)
SENDER_BANNED: Final = Reply(450, "4.7.1", "mail of this sender is not taken for some time", CHECK)

_PROOF: Final = frozenset({Trust.SPF_PASS, Trust.DKIM_ALIGNED})


class SpamTrapPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """`addresses` are Address keys; a ban of 0 seconds is none."""

    addresses: tuple[str, ...] = ()
    refuse_for_all: bool = True
    ban_client: float = 86_400.0
    ban_sender: float = 86_400.0


class TrapFacts(msgspec.Struct, frozen=True):
    """A message that named a trap. `known_good`: one of our own, or somebody vouches for the client."""

    trap: str
    sender: str
    trust: Trust
    known_good: bool


class Consequences(msgspec.Struct, frozen=True):
    """What follows: for the message, the client (seconds) and the sender (seconds)."""

    verdict: Verdict
    ban_client: float = 0.0
    ban_sender: float = 0.0

    @property
    def refuses(self) -> bool:
        return self.verdict.refuses


def evaluate(policy: SpamTrapPolicy, facts: TrapFacts) -> Consequences:
    """Judge a message that named a trap."""
    told = {"trap": facts.trap, "sender": facts.sender}
    action = Action.REJECT if policy.refuse_for_all else Action.ACCEPT
    verdict = Verdict(CHECK, action, TRAPPED if policy.refuse_for_all else None, told, reason="it names a trap")
    if facts.known_good:
        return Consequences(verdict)
    proven = bool(facts.sender) and facts.trust in _PROOF
    return Consequences(verdict, policy.ban_client, policy.ban_sender if proven else 0.0)


def sender_verdict(sender: str) -> Verdict:
    """What a banned sender's next messages meet."""
    return Verdict(CHECK, Action.DEFER, SENDER_BANNED, {"sender": sender}, reason="the sender is banned")
