"""Bans: who is kept away for a while, remembered by all edges together. Pure: edge/bans.py acts on them.

A key of the shared memory says whom it is about: `client:192.0.2.0/24`, `account:name`, `sender:user@domain`. Every
ban ends by itself, and what it answers is temporary (4xx): an address belongs to somebody else tomorrow.
"""

from __future__ import annotations

import ipaddress
from enum import Enum
from functools import lru_cache
from typing import Final

import msgspec

from gatepost.core.networks import enclosing_network
from gatepost.core.ports.state import Kind

# Of all edges together; some 400 bytes each. A botnet has more hosts, but those of one day guess in fewer networks.
MOST: Final = 50_000
# Nobody is kept away for longer than this by one entry, whatever clock or hand wrote it.
LONGEST_MS: Final = 366 * 86_400_000

# A wider network than this is half a continent: a slip of the hand.
WIDEST_IPV4: Final = 8
WIDEST_IPV6: Final = 16

_CLIENT: Final = "client:"
_ACCOUNT: Final = "account:"
_SENDER: Final = "sender:"
# So that a key fits the shared memory's limit of 512.
_MOST_NAME: Final = 480


class BanCause(Enum):
    """Why. The value stands in events, metrics and the list."""

    HARVEST = "harvest"
    AUTH = "auth-failures"
    TRAP = "spam-trap"
    ADMINISTRATOR = "administrator"


class Ban(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is remembered. Times in ms since 1970; `id` is the session that led to it, `reason` for people."""

    since_ms: int
    until_ms: int
    cause: BanCause
    reason: str = ""
    id: str = ""


BAN: Final[Kind[Ban]] = Kind("ban", Ban, 1, MOST)


class BanError(ValueError):
    """What is to be banned is not usable; the message says why."""


def client_key(network: str) -> str:
    """The key of a network (as `enclosing_network` writes it) or of one address. Raises BanError."""
    try:
        parsed = ipaddress.ip_network(network.strip(), strict=False)
    except ValueError:
        raise BanError(f"{network!r} is no IP address and no network") from None
    if isinstance(parsed, ipaddress.IPv6Network) and parsed.network_address.ipv4_mapped is not None:
        raise BanError(f"{network!r}: write IPv4 addresses as such")
    widest = WIDEST_IPV4 if parsed.version == 4 else WIDEST_IPV6
    if parsed.prefixlen < widest:
        raise BanError(f"{network!r} is wider than /{widest}")
    return f"{_CLIENT}{parsed}"


def account_key(login: str) -> str:
    """The key of an account, by the name that was tried."""
    return f"{_ACCOUNT}{login.lower()[:_MOST_NAME]}"


def sender_key(address: str) -> str:
    """The key of a reverse-path."""
    return f"{_SENDER}{address.lower()[:_MOST_NAME]}"


def subject_of(key: str) -> str:
    """Whom a key is about, for people: a network or an address alone, else `account:name` or `sender:address`."""
    if not key.startswith(_CLIENT):
        return key
    network = key.removeprefix(_CLIENT)
    return network.removesuffix("/128" if ":" in network else "/32")


def key_of(subject: str) -> str:
    """The key of what `subject_of` writes. Raises BanError."""
    for prefix, make in ((_ACCOUNT, account_key), (_SENDER, sender_key)):
        if subject.startswith(prefix) and len(subject) > len(prefix):
            return make(subject.removeprefix(prefix))
    return client_key(subject)


class BanIndex:
    """All bans, for a look-up in as many steps as there are lengths of prefixes."""

    def __init__(self) -> None:
        self._named: dict[str, Ban] = {}
        self._networks: dict[tuple[int, int], dict[str, Ban]] = {}

    def __len__(self) -> int:
        return len(self._named) + sum(map(len, self._networks.values()))

    def __bool__(self) -> bool:
        return bool(self._named or self._networks)

    def put(self, key: str, ban: Ban) -> None:
        """Note a ban; a key that no version of this program writes is passed over."""
        place = self._place(key)
        if place is not None:
            self._networks.setdefault(place, {})[key] = ban
        elif not key.startswith(_CLIENT):
            self._named[key] = ban

    def discard(self, key: str) -> None:
        self._named.pop(key, None)
        place = self._place(key)
        if place is None or place not in self._networks:
            return
        self._networks[place].pop(key, None)
        if not self._networks[place]:
            del self._networks[place]

    def client(self, address: str, now_ms: int) -> Ban | None:
        """The ban of the narrowest network that an address is in, if it has not ended."""
        for version, prefix in sorted(self._networks, reverse=True):
            network = _network(address, version, prefix)
            ban = None if network is None else self._networks[version, prefix].get(f"{_CLIENT}{network}")
            if ban is not None and _in_force(ban, now_ms):
                return ban
        return None

    def named(self, key: str, now_ms: int) -> Ban | None:
        """The ban of an account or a sender, by its key."""
        ban = self._named.get(key)
        return ban if ban is not None and _in_force(ban, now_ms) else None

    @staticmethod
    def _place(key: str) -> tuple[int, int] | None:
        if not key.startswith(_CLIENT):
            return None
        try:
            network = ipaddress.ip_network(key.removeprefix(_CLIENT))
        except ValueError:
            return None
        return network.version, network.prefixlen


def _in_force(ban: Ban, now_ms: int) -> bool:
    return now_ms < min(ban.until_ms, ban.since_ms + LONGEST_MS)


@lru_cache(maxsize=4096)
def _network(address: str, version: int, prefix: int) -> str | None:
    network = enclosing_network(address, *((prefix, 128) if version == 4 else (32, prefix)))
    return network if (":" in network) == (version == 6) else None
