"""Postfix's restrictions on names, and its limits on clients -> fields of the policy (postconf(5))."""

from __future__ import annotations

import re
from typing import Final

from gatepost.core.imports.plan import Place, Plan
from gatepost.core.imports.postfix_main import MainCf

# Postfix answers 450 where the DNS says no, since the DNS may be wrong: so does what is written here.
_FIELDS: Final[dict[str, tuple[str, object]]] = {
    "reject_unknown_client_hostname": ("connection.reverseDNS", {"require": "Confirmed", "action": "Defer"}),
    "reject_unknown_reverse_client_hostname": ("connection.reverseDNS", {"require": "PTR", "action": "Defer"}),
    "reject_unknown_sender_domain": ("senders.unresolvableDomain", "Defer"),
    "reject_unlisted_sender": ("senders.localMustExist", True),
}
_HELO: Final[dict[str, dict[str, str]]] = {
    "reject_invalid_helo_hostname": {"test": "Syntax", "action": "Reject"},
    "reject_non_fqdn_helo_hostname": {"test": "Syntax", "action": "Reject"},
    "reject_unknown_helo_hostname": {"test": "Resolves", "action": "Defer"},
}
_SECONDS: Final = re.compile(r"([1-9][0-9]{0,2})s?")


def add_check(word: str, place: Place, plan: Plan) -> bool:
    """Translate a restriction without a table; False when it is none of these."""
    helo = _HELO.get(word)
    if helo is not None:
        part = plan.policy.setdefault("helo", {})
        assert isinstance(part, dict)
        checks = part.setdefault("checks", [])
        if helo not in checks:
            checks.append(dict(helo))
        return True
    field, value = _FIELDS.get(word, ("", None))
    if not field:
        return False
    parent, _, last = field.partition(".")
    known = plan.policy.get(parent)
    # Of two wishes about a client's name the stricter one stands.
    if last == "reverseDNS" and isinstance(known, dict) and known.get(last, {}).get("require") == "Confirmed":
        return True
    plan.set(field, value)
    return True


def add_client_limits(main: MainCf, plan: Plan) -> None:
    """What slows clients down, and whether they must greet."""
    if main.get("smtpd_helo_required").lower() == "no":
        plan.set("helo.require", False)
    _number(main, "smtpd_soft_error_limit", "recipients.errorsBeforeDelay", plan)
    _number(main, "smtpd_client_connection_rate_limit", "connection.perHost.ratePerMinute", plan)
    rate = main.get("smtpd_client_message_rate_limit")
    if rate.isdecimal() and int(rate):
        # Postfix counts within anvil_rate_time_unit, a minute.
        plan.set("recipients.rates.perClient", {"messages": int(rate), "window": "1m"})
        plan.differs(
            main.place("smtpd_client_message_rate_limit"), "counted for the client's network, not its address"
        )
    pause = main.get("smtpd_error_sleep_time")
    found = _SECONDS.fullmatch(pause)
    if found is not None and int(found[1]) <= 30:
        plan.set("recipients.delay", f"{found[1]}s")
    elif pause and pause not in ("0", "0s"):
        plan.lost(main.place("smtpd_error_sleep_time"), "a refused client waits for 30s at most")


def _number(main: MainCf, name: str, path: str, plan: Plan) -> None:
    value = main.get(name)
    if value.isdecimal() and 1 <= int(value) <= 1_000_000:
        plan.set(path, int(value))
    elif value and value != "0":
        plan.lost(main.place(name), f"{value} is no limit that can be written (1 to 1000000)")
