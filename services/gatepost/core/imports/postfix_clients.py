"""mynetworks and the client tables of Postfix -> one set of networks with what is done with each.

In Postfix they are asked one after the other; here one look-up finds one rule, so they are joined: a network that
the client table does not refuse and that is in mynetworks may relay. Both are functions of the longest prefix, so
the networks of both together hold every answer.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from gatepost.core.access.entry import AccessError
from gatepost.core.access.keys import client_networks
from gatepost.core.imports.cidr import EVERYTHING, CidrRule, Network, flatten, parse_cidr, within, without
from gatepost.core.imports.plan import Place, Plan
from gatepost.core.imports.postfix_values import access_value, add_rule
from gatepost.core.imports.text_maps import logical_lines

_PERMITS: Final = frozenset({"OK", "SKIP"})
_NAME = re.compile(r"\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_Rules = dict[Network, tuple[str, Place]]


class Clients:
    """What is known of client networks; `write` turns it into access rules at the end."""

    def __init__(self) -> None:
        self._listed: _Rules = {}
        self._own: _Rules = {}

    def add_key(self, key: str, value: str, place: Place) -> bool:
        """A key of a table: an address or an octet prefix. False when it is none."""
        try:
            found = client_networks(key)
        except AccessError:
            return False
        for version, length, bits in found:
            kind = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
            network = kind((bits << ((32 if version == 4 else 128) - length), length))
            self._listed.setdefault(network, (value, place))
        return bool(found)

    def add_cidr(self, text: str, file: str, tag: str, plan: Plan) -> None:
        """A cidr table, with its if-blocks and negated patterns (cidr_table(5))."""
        if tag != "Connect":
            for _, place in logical_lines(text, file, continued=True):
                plan.lost(place, "networks say something of clients only")
            return
        rules: list[CidrRule] = []
        values: list[tuple[str, Place]] = []
        blocks: list[tuple[Network, ...]] = []
        for line, place in logical_lines(text, file, continued=True):
            pattern, _, result = line.replace("\t", " ").partition(" ")
            result = result.strip()
            if pattern.lower() == "endif":
                del blocks[-1:]
                continue
            begins = pattern.lower() == "if"
            try:
                networks = _matched(result if begins else pattern, blocks)
            except ValueError as error:
                plan.lost(place, str(error))
                blocks += [()] if begins else []
                continue
            if begins:
                blocks.append(networks)
                continue
            value = access_value(result)
            if value is None:
                plan.lost(place, f"{result.split(' ')[0].rstrip(',')} has no counterpart")
                value = "SKIP"  # it ends the search in Postfix too
            rules.append(CidrRule(networks, len(values)))
            values.append((value, place))
        for network, number in flatten(rules).items():
            self._listed.setdefault(network, values[number])

    def add_mynetworks(self, words: list[str], place: Place, plan: Plan) -> None:
        """Clients that may relay. The first pattern that matches decides, also one with "!"."""
        rules: list[CidrRule] = []
        values: list[str] = []
        for word in words:
            text = word.removeprefix("!")
            try:
                network = parse_cidr(text)
            except ValueError:
                if _NAME.fullmatch(text) and not text[-1].isdigit():
                    plan.access.append(f"Connect:{text}\t{'SKIP' if word != text else 'RELAY'}")
                else:
                    plan.lost(place, f"{word} in mynetworks is no network")
                continue
            rules.append(CidrRule((network,), len(values)))
            values.append("SKIP" if word.startswith("!") else "RELAY")
        chosen = flatten(rules)
        for rule, value in zip(rules, values, strict=True):
            if value == "SKIP" and rule.networks[0] not in chosen:
                plan.differs(
                    place, f"!{rule.networks[0]} has no effect, in Postfix neither: a network before it has it"
                )
        self._own = {network: (values[number], place) for network, number in chosen.items()}

    def write(self, plan: Plan) -> None:
        """Add the rules of both in front of the others."""
        lines: list[str] = []
        for network in {**self._listed, **self._own}:
            listed, own = _nearest(network, self._listed), _nearest(network, self._own)
            may_relay = own is not None and own[0] == "RELAY"
            if may_relay and own is not None and (listed is None or listed[0] in _PERMITS):
                add_rule(lines, f"Connect:{network}", "RELAY", own[1], plan)
            elif listed is not None:
                add_rule(lines, f"Connect:{network}", listed[0], listed[1], plan)
            elif own is not None:
                add_rule(lines, f"Connect:{network}", "SKIP", own[1], plan)
        plan.tables["postfix"] = lines + plan.tables.get("postfix", [])


def _nearest(network: Network, rules: Mapping[Network, tuple[str, Place]]) -> tuple[str, Place] | None:
    """What the longest prefix around a network (itself too) says."""
    for length in range(network.prefixlen, -1, -1):
        found = rules.get(network.supernet(new_prefix=length))
        if found is not None:
            return found
    return None


def _matched(pattern: str, blocks: list[tuple[Network, ...]]) -> tuple[Network, ...]:
    """What a pattern matches inside of the blocks around it. Raises ValueError."""
    around: tuple[Network, ...] = blocks[-1] if blocks else EVERYTHING
    if pattern.startswith("!"):
        return without(around, parse_cidr(pattern[1:].strip()))
    return within(parse_cidr(pattern), around)
