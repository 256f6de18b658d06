"""DNS lists of other servers -> `dnsbl.lists`: reject_rbl_client and its like, sendmail's dnsbl and enhdnsbl."""

from __future__ import annotations

from typing import Final

from gatepost.core.checks.dnsbl import CodeError, Codes
from gatepost.core.imports.plan import Place, Plan, domain_of

ALLOWED: Final = -100  # more than all lists of the bad together could weigh: 32 of them are the most
_RBL: Final = {
    "reject_rbl_client": "ClientAddress",
    "reject_rhsbl_helo": "HeloName",
    "reject_rhsbl_sender": "SenderDomain",
    "permit_dnswl_client": "ClientAddress",
}


def add_postfix_list(word: str, argument: str, place: Place, plan: Plan) -> bool:
    """Translate a restriction that asks a list; False when it is none of these (postconf(5))."""
    subject = _RBL.get(word)
    if subject is None:
        return False
    zone, _, code = argument.partition("=")
    codes = [one.strip() for one in code.split(";") if one.strip()]
    if not _add(plan, place, zone, codes, subject, allowed=word.startswith("permit")):
        return True
    if word.startswith("permit"):
        plan.differs(place, "who is on it is spared by the lists, not by what else stands behind it")
    return True


def add_sendmail_list(arguments: list[str], place: Place, plan: Plan) -> None:
    """FEATURE(`dnsbl', `zone', `text', `t') or FEATURE(`enhdnsbl', `zone', `text', `t', `code'...).

    With `t` a list that does not answer defers.
    """
    name, zone, text, tempfail, *codes = [*arguments, "", "", ""]
    codes = [code for code in codes if code] if name == "enhdnsbl" else []
    on_error = "Tempfail" if tempfail.startswith("t") else ""
    if _add(plan, place, zone or "blackholes.mail-abuse.org", codes, "ClientAddress", on_error=on_error) and text:
        plan.differs(place, "who is refused reads this server's own words")


def _add(
    plan: Plan,
    place: Place,
    zone: str,
    codes: list[str],
    subject: str,
    *,
    allowed: bool = False,
    on_error: str = "",
) -> bool:
    known = domain_of(zone)
    # Postfix writes a range as [2..11], several as [2;4..7]; only the first form is one here too.
    codes = [code.rstrip(".") for code in codes]
    try:
        Codes(tuple(codes))
    except CodeError as error:
        plan.lost(place, str(error))
        return False
    if known is None:
        plan.lost(place, f"{zone!r} is no name of a list")
        return False
    lists = plan.policy.setdefault("dnsbl", {})
    assert isinstance(lists, dict)
    one: dict[str, object] = {"zone": known}
    if codes:
        one["codes"] = codes
    if subject != "ClientAddress":
        one["subject"] = subject
    if allowed:
        one["weight"] = ALLOWED
    if on_error:
        one["onError"] = on_error
    entries = lists.setdefault("lists", [])
    if one not in entries:
        entries.append(one)
    return True
