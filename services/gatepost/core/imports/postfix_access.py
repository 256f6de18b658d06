"""Postfix's access tables by key (access(5)) -> access rules."""

from __future__ import annotations

from gatepost.core.access.entry import AccessError
from gatepost.core.access.keys import client_networks
from gatepost.core.imports.plan import Plan
from gatepost.core.imports.postfix_clients import Clients
from gatepost.core.imports.postfix_values import access_value, add_rule
from gatepost.core.imports.text_maps import pairs


def import_access(text: str, file: str, tag: str, clients: Clients, plan: Plan, *, parents: bool) -> None:
    """A table of check_client_access (Connect), check_helo_access, check_sender_access, check_recipient_access.

    `parents`: a domain matches the names below it (parent_domain_matches_subdomains has smtpd_access_maps).
    """
    rows = list(pairs(text, file, continued=True))
    keys = {pair.key.lower() for pair in rows}
    lines = plan.tables.setdefault("postfix", [])
    mixed = any(key.endswith("@") for key in keys) and any("@" not in key for key in keys)
    for pair in rows:
        value = access_value(pair.value)
        if value is None:
            plan.lost(pair.place, f"{pair.value.split(' ')[0].rstrip(',')} has no counterpart")
            continue
        key = pair.key
        if key.endswith("@") and mixed:
            plan.differs(pair.place, "a local part comes before a domain here; in Postfix after it")
        if pair.value.upper().startswith("DEFER_IF"):
            plan.differs(pair.place, "defers in any case that nothing rejects")
        if key.startswith(".") and parents:
            plan.lost(pair.place, "Postfix does not look up .domain while parent_domain_matches_subdomains has it")
            continue
        if tag == "Connect" and clients.add_key(key, value, pair.place):
            continue
        add_rule(lines, f"{tag}:{key}", value, pair.place, plan)
        if _is_name(key) and not parents and f".{key.lower()}" not in keys:
            add_rule(lines, f"{tag}:.{key}", "SKIP", pair.place, plan)  # the domain alone


def _is_name(key: str) -> bool:
    if "@" in key or key.startswith((".", "<", "[")):
        return False
    try:
        return not client_networks(key)
    except AccessError:
        return False
