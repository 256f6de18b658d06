"""transport(5): domain -> transport:nexthop, for the domains that mail is taken for."""

from __future__ import annotations

import re
from typing import Final

from gatepost.core.hosts import HostError, parse_host
from gatepost.core.imports.plan import Place, Plan, domain_of
from gatepost.core.imports.postfix_values import add_rule
from gatepost.core.imports.text_maps import Pair, pairs

_PORTS: Final = {"smtp": "25", "submission": "587", "submissions": "465", "smtps": "465"}


def import_transport(text: str, file: str, relayed: set[str], plan: Plan) -> None:
    """Routes of served and relayed domains become their delivery; errors become access rules."""
    below: list[tuple[str, str, Place]] = []
    for pair in pairs(text, file, continued=True):
        transport, _, hop = pair.value.partition(":")
        if pair.key == "*":
            _for_all(pair, transport, hop, plan)
        elif transport in ("error", "retry"):
            code = "550" if transport == "error" else "450"
            _error(pair, code, hop, plan)
        elif transport == "discard" and domain_of(pair.key):
            add_rule(plan.access, f"To:{pair.key}", "DISCARD", pair.place, plan)
        elif "@" in pair.key or pair.key == "<>":
            plan.lost(
                pair.place, "routes are per domain; for one address use an alias, or the directory's mail host"
            )
        elif transport not in ("", "smtp", "relay"):
            plan.lost(pair.place, f"the transport {transport!r} has no counterpart (LMTP servers are stores)")
        elif pair.value.strip() == ":":
            continue  # the domain's default, which it is here too
        elif next_hop(hop) is None:
            plan.lost(pair.place, f"{hop!r} is no next hop")
        elif pair.key.startswith("."):
            below.append((pair.key[1:].lower(), next_hop(hop) or "", pair.place))
        else:
            _route(pair, next_hop(hop) or "", relayed, plan)
    for parent, hop, place in below:
        one = plan.domains.get(parent)
        if one is not None and one.hosts == [hop]:
            one.subdomains = True
        else:
            plan.lost(
                place, "the names below a domain go where it goes (subdomains: true), or are objects of their own"
            )


def next_hop(text: str) -> str | None:
    """Postfix's "[host]:port" or "host:port" with names of ports replaced; None when it is none."""
    host = re.sub(r":([a-z]+)$", lambda found: f":{_PORTS.get(found[1], found[1])}", text.strip())
    try:
        parse_host(host)
    except HostError:
        return None
    return host


def _route(pair: Pair, hop: str, relayed: set[str], plan: Plan) -> None:
    name = domain_of(pair.key)
    if name is None:
        plan.lost(pair.place, "the key is no domain")
    elif name in plan.domains:
        plan.domain(name).hosts = [hop]
    elif name in relayed:
        one = plan.domain(name)
        one.hosts, one.any_recipient = [hop], True
        plan.access.remove(f"To:{name}\tRELAY")
    else:
        plan.lost(pair.place, "a route for a domain that is not served here: mail to it goes by MX")


def _for_all(pair: Pair, transport: str, hop: str, plan: Plan) -> None:
    host = next_hop(hop)
    if transport not in ("smtp", "relay", "") or host is None:
        plan.lost(pair.place, f"{pair.value!r} is no smart host")
        return
    plan.smart_hosts = [host]
    plan.differs(pair.place, "becomes outbound.smartHost of the domains served here: for their senders")


def _error(pair: Pair, code: str, text: str, plan: Plan) -> None:
    found = re.fullmatch(r"([45]\.[0-9]+\.[0-9]+)\s*(.*)", text)
    enhanced, words = (found[1], found[2]) if found else ("", text)
    value = f"ERROR:{enhanced}:{code} {words or 'not available'}" if enhanced else f"ERROR:{code} {words}"
    add_rule(plan.access, f"To:{pair.key}", value, pair.place, plan)
