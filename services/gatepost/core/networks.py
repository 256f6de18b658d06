"""Sets of IP networks: written by users as addresses, CIDRs or ranges, matched in one pass of integers."""

from __future__ import annotations

import bisect
import ipaddress
from functools import lru_cache

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class NetworkError(ValueError):
    """The text is no address, network or range; the message says why."""


def parse_network(text: str) -> tuple[int, int, int]:
    """Return (version, first, last) as integers for "192.0.2.1", "192.0.2.0/24" or "192.0.2.1-192.0.2.9"."""
    try:
        if "-" in text:
            low, high = (ipaddress.ip_address(part.strip()) for part in text.split("-", 1))
            if low.version != high.version or int(low) > int(high):
                raise NetworkError(f"{text!r}: the range must go upwards within one IP version")
            return low.version, int(low), int(high)
        network = ipaddress.ip_network(text.strip(), strict=True)
    except NetworkError:
        raise
    except ValueError as error:
        raise NetworkError(f"{text!r} is no IP address, network or range: {error}") from None
    return network.version, int(network.network_address), int(network.broadcast_address)


class NetworkSet:
    """Membership in O(log n), however many networks there are."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._starts: dict[int, list[int]] = {4: [], 6: []}
        self._ends: dict[int, list[int]] = {4: [], 6: []}
        for version in (4, 6):
            spans = sorted((low, high) for v, low, high in map(parse_network, texts) if v == version)
            for low, high in spans:
                ends = self._ends[version]
                if ends and low <= ends[-1]:
                    ends[-1] = max(ends[-1], high)
                else:
                    self._starts[version].append(low)
                    ends.append(high)

    def __contains__(self, address: str) -> bool:
        version, number = _number(address)
        place = bisect.bisect_right(self._starts[version], number) - 1
        return place >= 0 and number <= self._ends[version][place]

    def __bool__(self) -> bool:
        return bool(self._starts[4] or self._starts[6])


@lru_cache(maxsize=4096)
def enclosing_network(address: str, ipv4_prefix: int, ipv6_prefix: int) -> str:
    """The network that an address is counted under, as "192.0.2.0/24" or "2001:db8::/64". Raises ValueError."""
    parsed = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    prefix = ipv4_prefix if parsed.version == 4 else ipv6_prefix
    return str(ipaddress.ip_network(f"{parsed}/{prefix}", strict=False))


@lru_cache(maxsize=65536)
def _number(address: str) -> tuple[int, int]:
    """IPv4-mapped IPv6 addresses (RFC 4291 2.5.5.2) are compared as IPv4."""
    parsed = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return parsed.version, int(parsed)
