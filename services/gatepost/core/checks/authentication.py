"""Checks `spf`, `dkim`, `dmarc`: what is done with a message because of who did, or did not, stand behind it.

The results come from core.authentication; this file holds what a policy makes of them. SPF and DKIM say nothing of
the author, so by default their failures leave a tag at most; DMARC's decide. A failed DMARC has no effect where a
trusted sealer says that it passed before the message was changed (RFC 8617 7.2.1 leaves whom to trust to us).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from gatepost.core.address import Address
from gatepost.core.authentication.arc import ArcResult, ArcStatus
from gatepost.core.authentication.dkim import DkimSignatureResult, DkimStatus
from gatepost.core.authentication.dmarc import DmarcPolicy, DmarcResult, DmarcStatus
from gatepost.core.authentication.names import dns_name, is_below
from gatepost.core.authentication.results_field import split_results
from gatepost.core.authentication.spf import SpfResult, SpfStatus
from gatepost.core.authentication.tag_list import field_text
from gatepost.core.checks.verdict import Verdict
from gatepost.core.envelope import Trust
from gatepost.core.headers import Field
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.reply import Reply

# Codes: RFC 7372 3.2 (X.7.23, X.7.24 for SPF), 3.1 (X.7.20 for DKIM), 3.3 (X.7.26: several methods failed, which is
# what a failure of DMARC is); RFC 6376 6.3 (4.7.5: the key server is unavailable); RFC 3463 3.5 (X.4.3).
SPF_FAILED: Final = Reply(550, "5.7.23", "the sender's domain does not let your host send for it", "spf")
SPF_FAILED_YET: Final = Reply(450, "4.7.23", "the sender's domain does not let your host send for it", "spf")
SPF_BROKEN: Final = Reply(550, "5.7.24", "the SPF record of the sender's domain cannot be understood", "spf")
SPF_BROKEN_YET: Final = Reply(450, "4.7.24", "the SPF record of the sender's domain cannot be understood", "spf")
SPF_AWAY: Final = Reply(451, "4.7.24", "the SPF record of the sender's domain cannot be looked up now", "spf")
DKIM_FAILED: Final = Reply(550, "5.7.20", "no DKIM signature of the message is good", "dkim")
DKIM_FAILED_YET: Final = Reply(450, "4.7.20", "no DKIM signature of the message is good", "dkim")
DKIM_AWAY: Final = Reply(451, "4.7.5", "the key of a DKIM signature cannot be looked up now", "dkim")
DMARC_FAILED: Final = Reply(
    550, "5.7.26", "the author's domain asks to refuse what it did not authenticate", "dmarc"
)
DMARC_FAILED_YET: Final = Reply(
    450, "4.7.26", "the author's domain asks to refuse what it did not authenticate", "dmarc"
)
DMARC_BROKEN: Final = Reply(550, "5.7.26", "From names no author, or too many", "dmarc")
DMARC_BROKEN_YET: Final = Reply(450, "4.7.26", "From names no author, or too many", "dmarc")
DMARC_AWAY: Final = Reply(451, "4.4.3", "what the author's domain asks for cannot be looked up now", "dmarc")
FORGED_RESULTS: Final = Reply(
    554, "5.6.0", "too many Authentication-Results fields in this server's name", "authentication-results"
)

MAX_EXPLANATION: Final = 160  # of a stranger's text in a reply, behind our own and before check and id


class SpfActions(msgspec.Struct, frozen=True, omit_defaults=True):
    fail: Action = Action.TAG
    soft_fail: Action = Action.TAG
    perm_error: Action = Action.ACCEPT
    temp_error: OnError = OnError.IGNORE

    @property
    def refuse(self) -> bool:
        """Whether the result can refuse a sender, so that RCPT waits for it."""
        actions = (self.fail, self.soft_fail, self.perm_error)
        return self.temp_error is OnError.TEMPFAIL or any(one in (Action.REJECT, Action.DEFER) for one in actions)


class DkimActions(msgspec.Struct, frozen=True, omit_defaults=True):
    fail: Action = Action.ACCEPT
    temp_error: OnError = OnError.IGNORE


class DmarcActions(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9989 7.4: that a domain asks for reject is no reason by itself to reject, for lists break its mail."""

    reject: Action = Action.QUARANTINE
    quarantine: Action = Action.TAG
    perm_error: Action = Action.ACCEPT
    temp_error: OnError = OnError.IGNORE


class AuthenticationPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """`authserv_id` empty: the host name. `deadline` in seconds from the final dot."""

    spf: SpfActions = SpfActions()
    dkim: DkimActions = DkimActions()
    dmarc: DmarcActions = DmarcActions()
    trusted_sealers: tuple[str, ...] = ()
    authserv_id: str = ""
    deadline: float = 5.0


class Findings(msgspec.Struct, frozen=True):
    """All results for one message. `vouched`: a trusted sealer says that DMARC passed before it."""

    spf: SpfResult
    signatures: tuple[DkimSignatureResult, ...]
    arc: ArcResult
    dmarc: DmarcResult
    vouched: bool = False

    @property
    def dkim(self) -> DkimStatus | None:
        """The best of the signatures; None without any. Not knowing comes before knowing that it is bad."""
        found = [one.status for one in self.signatures]
        best = next((one for one in (DkimStatus.PASS, DkimStatus.TEMPERROR) if one in found), None)
        return best or (found[0] if found else None)

    def facts(self) -> dict[str, str]:
        """One short text for each method and what it is about, for events and log lines."""
        signers = dict.fromkeys(one.domain for one in self.signatures if one.status is self.dkim and one.domain)
        facts = {
            "spf": self.spf.status.value,
            "spf_domain": self.spf.domain,
            "dkim": "none" if self.dkim is None else self.dkim.value,
            "dkim_domain": ",".join(signers),
            "dmarc": self.dmarc.status.value,
            "dmarc_domain": self.dmarc.author_domain,
            "dmarc_policy": "" if self.dmarc.policy is None else self.dmarc.policy.value,
            "arc": self.arc.status.value,
            "arc_sealers": ",".join(self.arc.sealers),
        }
        return {name: value for name, value in facts.items() if value}


def evaluate_spf(actions: SpfActions, result: SpfResult) -> Verdict | None:
    """What follows from SPF alone; None for pass, neutral, none and a mere note."""
    facts = {"spf": result.status.value, "spf_domain": result.domain, "term": result.mechanism}
    reason = f"{result.status.value} for {result.domain}"
    match result.status:
        case SpfStatus.FAIL:
            return _verdict(
                actions.fail, _explained(SPF_FAILED, result), _explained(SPF_FAILED_YET, result), facts, reason
            )
        case SpfStatus.SOFTFAIL:
            return _verdict(actions.soft_fail, SPF_FAILED, SPF_FAILED_YET, facts, reason)
        case SpfStatus.PERMERROR:
            return _verdict(actions.perm_error, SPF_BROKEN, SPF_BROKEN_YET, facts, f"{reason}: {result.reason}")
        case SpfStatus.TEMPERROR:
            return _away(actions.temp_error, SPF_AWAY, facts, reason)
        case _:
            return None


def evaluate(policy: AuthenticationPolicy, findings: Findings) -> tuple[Verdict, ...]:
    """What follows from all results; nothing where a method that got no answer says to accept."""
    if _accepted_unknown(policy, findings):
        return ()
    found = (
        evaluate_spf(policy.spf, findings.spf),
        _dkim(policy.dkim, findings),
        _dmarc(policy.dmarc, findings),
    )
    return tuple(verdict for verdict in found if verdict is not None)


def _accepted_unknown(policy: AuthenticationPolicy, findings: Findings) -> bool:
    unknown = (
        (policy.spf.temp_error, findings.spf.status is SpfStatus.TEMPERROR),
        (policy.dkim.temp_error, findings.dkim is DkimStatus.TEMPERROR),
        (policy.dmarc.temp_error, findings.dmarc.status is DmarcStatus.TEMPERROR),
    )
    return any(action is OnError.ACCEPT and is_unknown for action, is_unknown in unknown)


def _dkim(actions: DkimActions, findings: Findings) -> Verdict | None:
    status = findings.dkim
    if status is None or status is DkimStatus.PASS:
        return None
    first = findings.signatures[0]
    facts = {"dkim": status.value, "dkim_domain": first.domain}
    reason = f"{status.value} for {first.domain}: {first.reason}"
    if status is DkimStatus.TEMPERROR:
        return _away(actions.temp_error, DKIM_AWAY, facts, reason)
    return _verdict(actions.fail, DKIM_FAILED, DKIM_FAILED_YET, facts, reason)


def _dmarc(actions: DmarcActions, findings: Findings) -> Verdict | None:
    result = findings.dmarc
    facts = {"dmarc": result.status.value, "dmarc_domain": result.author_domain}
    reason = f"{result.status.value} for {result.author_domain}" if result.author_domain else result.status.value
    match result.status, result.disposition:
        case DmarcStatus.TEMPERROR, _:
            return _away(actions.temp_error, DMARC_AWAY, facts, f"{reason}: {result.reason}")
        case DmarcStatus.PERMERROR, _:
            return _verdict(actions.perm_error, DMARC_BROKEN, DMARC_BROKEN_YET, facts, f"{reason}: {result.reason}")
        case DmarcStatus.FAIL, (DmarcPolicy.REJECT | DmarcPolicy.QUARANTINE) as asked if not findings.vouched:
            facts["asked"] = asked.value
            action = actions.reject if asked is DmarcPolicy.REJECT else actions.quarantine
            return _verdict(
                action, DMARC_FAILED, DMARC_FAILED_YET, facts, f"{reason}, which asks for {asked.value}"
            )
        case _:
            return None


def _verdict(action: Action, reject: Reply, defer: Reply, facts: dict[str, str], reason: str) -> Verdict | None:
    if action is Action.ACCEPT:
        return None
    reply = {Action.REJECT: reject, Action.DEFER: defer}.get(action)
    return Verdict(
        reject.check, action, reply, {key: value for key, value in facts.items() if value}, reason=reason
    )


def _away(on_error: OnError, reply: Reply, facts: dict[str, str], reason: str) -> Verdict | None:
    return _verdict(Action.DEFER, reply, reply, facts, reason) if on_error is OnError.TEMPFAIL else None


def _explained(reply: Reply, result: SpfResult) -> Reply:
    """RFC 7208 8.4, 6.2: a stranger's explanation is marked as such."""
    if not result.explanation:
        return reply
    said = f"{reply.text}; {result.domain} explains: {result.explanation[:MAX_EXPLANATION]}"
    return msgspec.structs.replace(reply, text=said)


def trust_of(sender: Address | None, spf: SpfResult, signatures: Iterable[DkimSignatureResult]) -> Trust:
    """How far the return path can be trusted: by SPF, or by a good signature of its own domain or one above.

    A signature of the author's domain says nothing of a return path in another one.
    """
    if sender is None:
        return Trust.UNVERIFIED
    if spf.status is SpfStatus.PASS:
        return Trust.SPF_PASS
    domain = dns_name(sender.domain)
    signers = (one.domain for one in signatures if one.status is DkimStatus.PASS and one.domain)
    if domain is not None and any(is_below(domain, signer) for signer in signers):
        return Trust.DKIM_ALIGNED
    return Trust.UNVERIFIED


def is_vouched(fields: Sequence[Field], arc: ArcResult, author: str, trusted: Collection[str]) -> bool:
    """Whether a chain passes, all of its sealers are trusted, and the first of them saw DMARC pass for this author.

    A chain alone only says that nobody changed it: a list seals what it was given, forged mail too (RFC 8617 9.4).
    """
    if arc.status is not ArcStatus.PASS or not arc.sealers or not set(arc.sealers) <= set(trusted):
        return False
    for field in fields:
        if field.name == b"arc-authentication-results":
            # i= comes first (RFC 8617 4.1.1), then the authserv-id, then the results.
            instance, *results = split_results(field_text(field.value)) or [""]
            if instance.replace(" ", "") == "i=1":
                return any(_is_pass_for(result.lower().split(), author) for result in results)
    return False


def _is_pass_for(words: list[str], author: str) -> bool:
    authors = [word.partition("=")[2] for word in words if word.startswith("header.from=")]
    return words[:1] == ["dmarc=pass"] and all(one.strip('"') == author for one in authors)
