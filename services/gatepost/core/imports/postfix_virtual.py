"""virtual(5): addresses and whole domains -> aliases, alias domains and who gets unknown recipients' mail."""

from __future__ import annotations

import re

from gatepost.core.imports.plan import Plan, domain_of
from gatepost.core.imports.text_maps import Pair, pairs


def import_virtual(text: str, file: str, plan: Plan) -> None:
    rows = list(pairs(text, file, continued=True))
    for pair in rows:  # "domain anything" says that the domain is a virtual one
        name = domain_of(pair.key) if "@" not in pair.key and "." in pair.key else None
        if name is not None and plan.serves(name) is None:
            plan.domain(name)
            if not plan.primary or plan.primary not in plan.domains:
                plan.primary = name
    for pair in rows:
        local, at, name = pair.key.rpartition("@")
        domain = domain_of(name) if at else None
        if not at and "." in pair.key:
            continue
        if at and domain is None:
            plan.lost(pair.place, "the key is no address and no domain")
        elif at and not local:
            _whole_domain(pair, domain or "", plan)
        else:
            _address(pair, local if at else pair.key, domain or plan.main, plan)


def _address(pair: Pair, local: str, domain: str, plan: Plan) -> None:
    targets = []
    for target in re.split(r"[\s,]+", pair.value):
        address = plan.full(target) if target else None
        if address is not None:
            targets.append(address)
        elif target:
            plan.lost(pair.place, f"{target!r} is no address")
    if not targets or not domain:
        plan.lost(pair.place, "no address is left to send to")
        return
    _own(plan, domain)
    plan.domain(domain).aliases[local.lower()] = targets


def _whole_domain(pair: Pair, domain: str, plan: Plan) -> None:
    targets = [target for target in re.split(r"[\s,]+", pair.value) if target]
    if len(targets) == 1 and targets[0].startswith("@"):
        other = plan.serves(domain_of(targets[0][1:]) or "")
        own = plan.domains.get(domain)
        if other is None or (own is not None and (own.aliases or own is other)):
            plan.lost(pair.place, "only a domain without aliases of its own can be another name for a served one")
            return
        plan.domains.pop(domain, None)
        if domain not in other.alias_domains:
            other.alias_domains.append(domain)
        return
    address = plan.full(targets[0]) if len(targets) == 1 else None
    if address is None:
        plan.lost(pair.place, "unknown recipients' mail goes to one address")
        return
    _own(plan, domain)
    plan.domain(domain).unknown_to = address


def _own(plan: Plan, domain: str) -> None:
    """Give the domain an object of its own when it was only another name so far."""
    for one in plan.domains.values():
        if domain in one.alias_domains:
            one.alias_domains.remove(domain)
    plan.domain(domain)
