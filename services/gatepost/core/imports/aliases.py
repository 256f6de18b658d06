"""The aliases file of sendmail and Postfix (aliases(5)): `name: target, target`, for the local domain."""

from __future__ import annotations

import re

from gatepost.core.imports.plan import Place, Plan
from gatepost.core.imports.text_maps import logical_lines


def read_aliases(text: str, file: str, plan: Plan) -> None:
    """Add the aliases of the primary domain. Programs, files and lists in files are told, never dropped."""
    if not plan.primary:
        for _, place in logical_lines(text, file, continued=True):
            plan.lost(place, "there is no local domain that the alias could belong to")
        return
    domain = plan.domain(plan.primary)
    for line, place in logical_lines(text, file, continued=True):
        name, colon, targets = line.partition(":")
        if not colon or not targets.strip():
            plan.lost(place, "name: targets is expected")
            continue
        found = _targets(targets, place, plan)
        if found:
            domain.aliases[name.strip().strip('"').lower()] = found


def _targets(text: str, place: Place, plan: Plan) -> list[str]:
    found = []
    for target in _split(text):
        bare = target.strip().strip('"').removeprefix("\\")
        if bare.startswith(("|", "/", ":include:")):
            plan.lost(
                place, f"{bare!r}: mail goes to mailboxes and addresses, not to programs, files or lists in files"
            )
            continue
        address = plan.full(bare)
        if address is None:
            plan.lost(place, f"{bare!r} is no address")
            continue
        found.append(address)
    return found


def _split(text: str) -> list[str]:
    """Split at commas outside of quotes."""
    return [part.strip() for part in re.findall(r'(?:"(?:[^"\\]|\\.)*"|[^,"])+', text) if part.strip()]
