"""What a check concludes, and what several conclusions amount to: one value for all of them.

Verdicts on a client or a sender are remembered and act on each recipient, so that a role address (RFC 2142) or a
recipient with an exception stays reachable. The strongest one decides: Reject, Defer, Discard, Quarantine; every
Tag is kept beside it. Accept and Relay never outweigh another check's verdict: who is exempt is not checked at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from gatepost.core.manifest.actions import Action
from gatepost.core.reply import Reply

# RFC 2142 3, 4 and 5 (and S4-78): who is written to because something goes wrong must be reachable even then.
ROLE_NAMES: Final = frozenset({"postmaster", "abuse", "hostmaster"})

MAX_REASON: Final = 200  # characters; of a header line (RFC 5322 2.1.1: 998) and of the quarantine's list

_STRENGTH: Final = (Action.REJECT, Action.DEFER, Action.DISCARD, Action.QUARANTINE)
GRAVITY: Final = (*_STRENGTH, Action.TAG, Action.ACCEPT, Action.RELAY)
"""All actions, the one that weighs most first."""
_FALLBACK: Final = {
    Action.REJECT: (550, "5.7.1", "refused by a policy of this server"),
    Action.DEFER: (450, "4.7.1", "not taken at the moment, please try again later"),
}


class Verdict(msgspec.Struct, frozen=True):
    """One check's conclusion. `facts` are short texts for the events; `score` only where a check counts.

    `reply` is what the client reads where the action is Reject or Defer; `reason` is for quarantine and tag.
    """

    check: str
    action: Action
    reply: Reply | None = None
    facts: dict[str, str] = {}
    score: float = 0.0
    reason: str = ""

    @property
    def refuses(self) -> bool:
        return self.action in (Action.REJECT, Action.DEFER)

    @property
    def answer(self) -> Reply:
        """The refusal, also for a check that brings no text of its own."""
        if self.reply is not None:
            return self.reply
        code, enhanced, text = _FALLBACK.get(self.action, _FALLBACK[Action.REJECT])
        return Reply(code, enhanced, text, self.check)

    @property
    def told(self) -> str:
        """`check: reason` in printable characters, for a header line and for the quarantine."""
        text = f"{self.check}: {self.reason}" if self.reason else self.check
        return "".join(c if c.isprintable() else "?" for c in text)[:MAX_REASON]


class Decision(msgspec.Struct, frozen=True):
    """What verdicts amount to: `strongest` is the one of Reject, Defer, Discard, Quarantine that acts, if any."""

    strongest: Verdict | None = None
    tags: tuple[Verdict, ...] = ()

    @property
    def action(self) -> Action:
        return Action.ACCEPT if self.strongest is None else self.strongest.action


NOTHING: Final = Decision()


def decide(verdicts: Iterable[Verdict]) -> Decision:
    """Weigh verdicts; of several with one action the first decides."""
    first: dict[Action, Verdict] = {}
    tags: list[Verdict] = []
    for verdict in verdicts:
        if verdict.action is Action.TAG:
            tags.append(verdict)
        else:
            first.setdefault(verdict.action, verdict)
    strongest = next((first[action] for action in _STRENGTH if action in first), None)
    return Decision(strongest, tuple(tags)) if strongest or tags else NOTHING


def tag_field(told: str) -> str:
    """The header line of a tag, with CRLF: `X-Gatepost-Tag: check; reason`."""
    name, _, reason = told.partition(": ")
    text = f"{name}; {reason}" if reason else name
    return f"X-Gatepost-Tag: {text.encode('ascii', 'replace').decode()}\r\n"


def fitting(action: Action, reply: Reply) -> Reply:
    """A permanent refusal's text, with the temporary code where the action is Defer (RFC 5321 4.2.1)."""
    if action is not Action.DEFER:
        return reply
    return msgspec.structs.replace(reply, code=450, enhanced=f"4{reply.enhanced[1:]}")


def is_role_address(local: str) -> bool:
    """Whether a local part is one of RFC 2142's that stay reachable for refused clients and senders."""
    return local.lower() in ROLE_NAMES
