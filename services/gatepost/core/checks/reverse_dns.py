"""Check `reverse-dns`: has the client's address a name, and does that lead back to it (RFC 1912 2.1, RFC 8601 3)?

Many honest servers have a wrong reverse zone: by default nothing is required, and a failure of the DNS is never
taken for a missing name.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from gatepost.core.checks.verdict import Verdict
from gatepost.core.client_facts import ClientFacts, Outcome
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.reply import Reply

CHECK: Final = "reverse-dns"

# RFC 7372 3.3: 5.7.25 "reverse DNS validation failed"
NO_NAME: Final = Reply(550, "5.7.25", "your address has no name in the DNS (PTR)", CHECK)
NOT_CONFIRMED: Final = Reply(550, "5.7.25", "your address's name in the DNS does not lead back to it", CHECK)
NO_NAME_YET: Final = Reply(450, "4.7.25", "your address has no name in the DNS (PTR)", CHECK)
NOT_CONFIRMED_YET: Final = Reply(450, "4.7.25", "your address's name in the DNS does not lead back to it", CHECK)
REVERSE_UNKNOWN: Final = Reply(
    451, "4.4.3", "your address's name cannot be looked up, please try again later", CHECK
)


class Require(Enum):
    """PTR: any name. CONFIRMED: one whose A or AAAA records have the client's address."""

    NONE = "None"
    PTR = "PTR"
    CONFIRMED = "Confirmed"


class ReverseDns(msgspec.Struct, frozen=True, omit_defaults=True):
    require: Require = Require.NONE
    action: Action = Action.TAG
    on_error: OnError = OnError.TEMPFAIL


def evaluate(config: ReverseDns, facts: ClientFacts) -> Verdict | None:
    if config.require is Require.NONE or facts.reverse is Outcome.NOT_ASKED:
        return None
    told = {"client": facts.address, "names": ",".join(facts.names), "confirmed": ",".join(facts.confirmed)}
    if facts.reverse is Outcome.FAILED:
        return _unknown(config, told)
    if facts.reverse is Outcome.ABSENT:
        reply = NO_NAME_YET if config.action is Action.DEFER else NO_NAME
        return Verdict(CHECK, config.action, reply, told, reason="no name")
    if config.require is Require.PTR or facts.confirmed:
        return None
    if facts.forward is Outcome.FAILED:
        return _unknown(config, told)
    reply = NOT_CONFIRMED_YET if config.action is Action.DEFER else NOT_CONFIRMED
    return Verdict(CHECK, config.action, reply, told, reason="name not confirmed")


def _unknown(config: ReverseDns, told: dict[str, str]) -> Verdict | None:
    """A check that could only tag or note is no reason to make anybody wait."""
    if config.on_error is not OnError.TEMPFAIL or config.action in (Action.TAG, Action.ACCEPT):
        return None
    return Verdict(CHECK, Action.DEFER, REVERSE_UNKNOWN, told, reason="the DNS did not answer")
