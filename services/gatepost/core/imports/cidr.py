"""First match wins (Postfix's cidr tables and match lists) -> the longest prefix wins (access rules).

Networks nest or are apart, so the order is kept when a network inside an earlier one is left out: it never
matched. A negated network means everything else of what surrounds it (cidr_table(5)).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
EVERYTHING: tuple[Network, Network] = (ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0"))


class CidrRule(NamedTuple):
    """`networks` is what it matches; `number` tells it apart for the caller."""

    networks: tuple[Network, ...]
    number: int


def parse_cidr(text: str) -> Network:
    """Read "192.0.2.0/24", "192.0.2.1", "[::1]/128" or "[2001:db8::]/32". Raises ValueError."""
    return ipaddress.ip_network(text.replace("[", "").replace("]", ""), strict=True)


def without(outer: Sequence[Network], hole: Network) -> tuple[Network, ...]:
    """`outer` less `hole`; of the hole's IP version only, as a pattern matches only addresses of its own."""
    kept: list[Network] = []
    for network in outer:
        if network.version != hole.version:
            continue
        if _contains(hole, network):
            continue
        if _contains(network, hole):
            kept.extend(network.address_exclude(hole))  # type: ignore[arg-type]
        else:
            kept.append(network)
    return tuple(kept)


def within(network: Network, block: Sequence[Network]) -> tuple[Network, ...]:
    """The part of a network that lies inside a block."""
    return tuple(
        network if _contains(outer, network) else outer
        for outer in block
        if _contains(outer, network) or _contains(network, outer)
    )


def flatten(rules: Sequence[CidrRule]) -> dict[Network, int]:
    """Network -> number of the rule that decides for it where no longer prefix does."""
    chosen: dict[Network, int] = {}
    by_length: dict[tuple[int, int], set[int]] = {}
    for rule in rules:
        for network in rule.networks:
            if _covered(network, by_length):
                continue
            chosen[network] = rule.number
            by_length.setdefault((network.version, network.prefixlen), set()).add(int(network.network_address))
    return chosen


def _covered(network: Network, by_length: dict[tuple[int, int], set[int]]) -> bool:
    """Whether an earlier network contains it."""
    address = int(network.network_address)
    for (version, length), starts in by_length.items():
        if version == network.version and length <= network.prefixlen:
            shift = network.max_prefixlen - length
            if (address >> shift) << shift in starts:
                return True
    return False


def _contains(outer: Network, inner: Network) -> bool:
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]
