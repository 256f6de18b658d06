"""Check `sender-domain`: can the sender's domain get mail at all (RFC 5321 5.1, RFC 7505 4.2)?

Mail whose sender cannot be answered could never be bounced either. A failure of the DNS is never taken for a domain
that does not exist.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gatepost.core.checks.verdict import Verdict
from gatepost.core.client_facts import Outcome, SenderFacts
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.reply import Reply

CHECK: Final = "sender-domain"

# RFC 7505 4.2 and RFC 3463 3.2: X.1.8 "bad sender's system address", X.7.27 "sender address has null MX"
UNRESOLVABLE: Final = Reply(550, "5.1.8", "your sender's domain does not exist in the DNS", CHECK)
UNRESOLVABLE_YET: Final = Reply(450, "4.1.8", "your sender's domain cannot be found in the DNS", CHECK)
SENDER_NULL_MX: Final = Reply(550, "5.7.27", "your sender's domain takes no mail (RFC 7505)", CHECK)
SENDER_UNKNOWN: Final = Reply(
    451, "4.4.3", "your sender's domain cannot be looked up, please try again later", CHECK
)


class SenderDomainPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """`action` None: not checked."""

    action: Action | None = None
    on_error: OnError = OnError.TEMPFAIL


def evaluate(config: SenderDomainPolicy, facts: SenderFacts) -> Verdict | None:
    if config.action is None or not facts.domain:
        return None
    told = {"domain": facts.domain}
    if facts.null_mx:
        reply = UNRESOLVABLE_YET if config.action is Action.DEFER else SENDER_NULL_MX
        return Verdict(CHECK, config.action, reply, told, reason=f"{facts.domain} takes no mail")
    if facts.resolves is Outcome.ABSENT:
        reply = UNRESOLVABLE_YET if config.action is Action.DEFER else UNRESOLVABLE
        return Verdict(CHECK, config.action, reply, told, reason=f"{facts.domain} does not exist")
    mild = config.action in (Action.TAG, Action.ACCEPT)
    if facts.resolves is Outcome.FAILED and config.on_error is OnError.TEMPFAIL and not mild:
        return Verdict(CHECK, Action.DEFER, SENDER_UNKNOWN, told, reason=f"{facts.domain}: no answer")
    return None
