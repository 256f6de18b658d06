"""Appends in doubt: by what a client's retry is recognised, and what is remembered until it comes (G1).

An append that ran into its limit may be written yet. The client was told 451 and sends the message again; if that
retry is appended under the id of the first try, all that derives from it is recognised downstream. RFC 1047
describes the duplicates that come about otherwise. Pure: edge/in_doubt.py has the tasks.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final

import msgspec

from gatepost.core.message import fields
from gatepost.core.ports.state import Kind

# RFC 5321 4.5.4.1: senders give up after 4 to 5 days.
LIFETIME_MS: Final = 5 * 86_400_000
# Of all edges together; about 850 bytes each. An outage leaves about as many as there are sessions (2,000 an edge).
MOST: Final = 20_000
# What makes two mails different whose words are the same. RFC 5322 3.6 requires Date of every message.
_UNIQUE_FIELDS: Final = (b"date", b"message-id", b"received")

# A client's retry may come from another host of its farm; those are neighbours.
_IPV4_NETWORK: Final = 24
_IPV6_NETWORK: Final = 64


class DoubtState(Enum):
    """What is known of the append. An append of which it is certain that it never was is remembered no longer."""

    UNKNOWN = "Unknown"
    WRITTEN = "Written"


class Doubt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the shared memory holds under the message's id. `since_ms` is when the append was given up."""

    fingerprint: str
    since_ms: int
    state: DoubtState = DoubtState.UNKNOWN

    @property
    def until_ms(self) -> int:
        return self.since_ms + LIFETIME_MS


IN_DOUBT: Final[Kind[Doubt]] = Kind("in-doubt", Doubt, 1, MOST)


def fingerprint(
    address: str, login: str, reverse_path: str, recipients: Iterable[str], size: int, sha256: str
) -> str:
    """Return by what a retry is recognised, in hex: who sends, the envelope, the content as it was received.

    `login` counts instead of the address where the client has authenticated. Neither HELO nor the listener nor a
    parameter of MAIL counts: they differ between hosts of one sender. The order of recipients does not count
    either, but their set does: a try with fewer of them is another message.
    """
    origin = f"login:{login}" if login else f"network:{client_network(address)}"
    # No part can hold a NUL: the session refuses it.
    parts = (origin, reverse_path, str(size), sha256, *sorted(recipients))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def client_network(address: str) -> str:
    """Return the client's neighbourhood: its IPv4 /24 or IPv6 /64; IPv4 in IPv6 (RFC 4291 2.5.5.2) as IPv4."""
    try:
        parsed = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    bits = _IPV4_NETWORK if parsed.version == 4 else _IPV6_NETWORK
    return str(ipaddress.ip_network((parsed, bits), strict=False))


def is_distinct(start: bytes) -> bool:
    """Whether the start of a message has a field that two mails of the same words would not share.

    A device that sends "alarm" again and again, without a date, means each of them: its mails are never taken for
    one another.
    """
    return any(name in _UNIQUE_FIELDS and bool(value.strip()) for name, value in fields(start))


class DoubtIndex:
    """Doubts by fingerprint; several messages may share one."""

    def __init__(self) -> None:
        self._by_fingerprint: dict[str, dict[str, Doubt]] = {}
        self._fingerprints: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._fingerprints)

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._fingerprints

    def put(self, message_id: str, doubt: Doubt) -> None:
        self.discard(message_id)
        self._fingerprints[message_id] = doubt.fingerprint
        self._by_fingerprint.setdefault(doubt.fingerprint, {})[message_id] = doubt

    def discard(self, message_id: str) -> Doubt | None:
        """Remove and return one, or None."""
        found = self._fingerprints.pop(message_id, None)
        if found is None:
            return None
        same = self._by_fingerprint[found]
        doubt = same.pop(message_id)
        if not same:
            del self._by_fingerprint[found]
        return doubt

    def matching(self, wanted: str, now_ms: int) -> Iterator[tuple[str, Doubt]]:
        """Yield the ids and doubts with a fingerprint that have not expired, the oldest message first."""
        for message_id, doubt in sorted(self._by_fingerprint.get(wanted, {}).items()):
            if doubt.until_ms > now_ms:
                yield message_id, doubt
