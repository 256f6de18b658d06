"""Check `local-sender`: mail that says it comes from a domain served here.

`spoofed`: a stranger names a sender of ours. Somebody on the road who uses another provider's server does that
honestly, so SPF's pass spares it, as do a login and every right to relay.
`unknown`: the sender's domain is served here and has no such address: such mail could never be answered, whoever
sends it. A directory that is away is never taken for an unknown address.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gatepost.core.authentication.spf import SpfStatus
from gatepost.core.checks.verdict import Verdict, fitting
from gatepost.core.manifest.actions import Action
from gatepost.core.reply import Reply

CHECK: Final = "local-sender"

SPOOFED: Final = Reply(550, "5.7.1", "mail of this domain's senders is sent after AUTH only", CHECK)
SENDER_MISSING: Final = Reply(550, "5.1.0", "there is no such sender here", CHECK)  # RFC 3463 3.2, X.1.0
SENDER_NOT_LOOKED_UP: Final = Reply(451, "4.4.3", "the sender cannot be looked up, please try again later", CHECK)


class LocalSenderPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """`spoofed` None: strangers may name senders of ours; `must_exist`: senders of ours are looked up."""

    spoofed: Action | None = None
    must_exist: bool = False

    @property
    def asks(self) -> bool:
        return self.must_exist or self.spoofed is not None


OFF: Final = LocalSenderPolicy()
"""The default itself: only this very one is left out of a configuration that is written."""


class LocalSenderFacts(msgspec.Struct, frozen=True):
    """A sender of a domain served here. `exists` None: the directory did not answer, or was not asked."""

    sender: str
    own: bool
    spf: SpfStatus | None
    exists: bool | None = None


def evaluate(policy: LocalSenderPolicy, facts: LocalSenderFacts) -> Verdict | None:
    told = {"sender": facts.sender, "spf": "" if facts.spf is None else facts.spf.value}
    if policy.spoofed is not None and not facts.own and facts.spf is not SpfStatus.PASS:
        reply = fitting(policy.spoofed, SPOOFED)
        return Verdict(CHECK, policy.spoofed, reply, told, reason=f"{facts.sender} is ours, the client is not")
    if not policy.must_exist or facts.exists:
        return None
    if facts.exists is None:
        return Verdict(CHECK, Action.DEFER, SENDER_NOT_LOOKED_UP, told, reason="the directory does not answer")
    return Verdict(CHECK, Action.REJECT, SENDER_MISSING, told, reason=f"{facts.sender} does not exist")
