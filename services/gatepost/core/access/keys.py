"""The keys of access rules: how they are written, what they are stored as, and in which order they are looked up.

Written forms, as in sendmail's access database (cf/README, "Anti-spam configuration control"):

    client      192.0.2.1 | 192.0.2 (an octet prefix) | IPv6:2001:db8:20 (a prefix of 16-bit groups)
                beyond sendmail: 192.0.2.0/24, 2001:db8::/32, 192.0.2.1-192.0.2.9
    host name   mx.example.net (and the names below it) | .example.net (only the names below it)
    sender and  user@domain | user@ (in any domain) | domain (and those below it) | .domain (only those below it)
    recipient   | <> (the null sender)

Order, the most specific first: user+detail@domain, user@domain, user@, then the domain, and for each parent
".parent" before "parent". Of networks the longest prefix wins.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from gatepost.core.access.entry import AccessError, Tag
from gatepost.core.address import Address, AddressError, parse_address
from gatepost.core.domain import DomainError, canonical_domain

NULL_SENDER: Final = "<>"
MAX_KEY: Final = 330  # an address of RFC 5321 4.5.3.1, with a tag in front

_OCTETS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){0,3}\.?")
_LOCAL = re.compile(r"[^\s@<>\"]{1,64}", re.UNICODE)


class Network(NamedTuple):
    """A network key: IP version, length of the prefix in bits, and its first `length` bits as an integer."""

    version: int
    length: int
    bits: int


def client_networks(key: str) -> tuple[Network, ...]:
    """The networks that a client key means, () when it is a host name. Raises AccessError for a bad one."""
    text = key[5:] if key[:5].lower() == "ipv6:" else key
    if "/" in text:
        return (_cidr(text),)
    if "-" in text and text[:1].isdigit() and _is_range(text):
        return _range(text)
    if _OCTETS.fullmatch(text):
        return (_octets(text),)
    if ":" in text:
        return (_groups(text),)
    if len(text) < len(key):
        raise AccessError(f"{key!r} is no IPv6 address or prefix")
    return ()


def _cidr(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text, strict=True)
    except ValueError as error:
        raise AccessError(f"{text!r} is no network: {error}") from None
    return _network(network)


def _network(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Network:
    shift = network.max_prefixlen - network.prefixlen
    return Network(network.version, network.prefixlen, int(network.network_address) >> shift)


def _is_range(text: str) -> bool:
    low, _, high = text.partition("-")
    try:
        ipaddress.ip_address(low.strip()), ipaddress.ip_address(high.strip())
    except ValueError:
        return False
    return True


def _range(text: str) -> tuple[Network, ...]:
    low, high = (ipaddress.ip_address(part.strip()) for part in text.split("-", 1))
    try:
        return tuple(_network(each) for each in ipaddress.summarize_address_range(low, high))
    except (TypeError, ValueError):
        raise AccessError(f"{text!r}: the range must go upwards within one IP version") from None


def _octets(text: str) -> Network:
    octets = [int(octet) for octet in text.rstrip(".").split(".")]
    if max(octets) > 255:
        raise AccessError(f"{text!r} is no IPv4 address or octet prefix: {max(octets)} is above 255")
    bits = 0
    for octet in octets:
        bits = bits << 8 | octet
    return Network(4, 8 * len(octets), bits)


def _groups(text: str) -> Network:
    """A whole IPv6 address, or fewer than eight groups without "::"."""
    try:
        return Network(6, 128, int(ipaddress.IPv6Address(text)))
    except ValueError:
        groups = text.removesuffix(":").split(":")
        if "" in groups or len(groups) > 7 or any(re.fullmatch(r"[0-9A-Fa-f]{1,4}", one) is None for one in groups):
            raise AccessError(f"{text!r} is no IPv6 address or prefix of 16-bit groups") from None
        bits = 0
        for group in groups:
            bits = bits << 16 | int(group, 16)
        return Network(6, 16 * len(groups), bits)


def name_key(key: str) -> str:
    """The stored form of a host name or domain, with its leading dot where it has one. Raises AccessError."""
    dot = "." if key.startswith(".") else ""
    try:
        return dot + canonical_domain(key.removeprefix("."))
    except DomainError as error:
        raise AccessError(str(error)) from None


def mailbox_key(key: str, tag: Tag) -> str:
    """The stored form of a sender's or recipient's key. Raises AccessError."""
    if key == NULL_SENDER:
        if tag is Tag.TO:
            raise AccessError("<> is a sender; no recipient is written so")
        return key
    if key.endswith("@"):
        if _LOCAL.fullmatch(key[:-1]) is None:
            raise AccessError(f"{key!r}: a local part is expected in front of @")
        return key.lower()
    if "@" in key:
        try:
            return parse_address(key).key
        except AddressError as error:
            raise AccessError(f"{key!r} is not an address: {error.reason}") from None
    if key.startswith("[") and key.endswith("]"):
        return _literal_key(key)
    return name_key(key)


def _literal_key(key: str) -> str:
    """The domain of addresses at an IP address (RFC 5321 4.1.3)."""
    try:
        return parse_address(f"x@{key}").domain
    except AddressError as error:
        raise AccessError(f"{key!r}: {error.reason}") from None


def name_forms(name: str) -> Iterator[str]:
    """The keys that a canonical name is looked up by, the most specific first."""
    yield name
    if name.startswith("["):
        return
    place = name.find(".")
    while place >= 0:
        yield name[place:]
        yield name[place + 1 :]
        place = name.find(".", place + 1)


def mailbox_forms(address: Address | None) -> Iterator[str]:
    """The keys that a sender (None: the null one) or recipient is looked up by, the most specific first."""
    if address is None:
        yield NULL_SENDER
        return
    local = address.local.lower()
    yield f"{local}@{address.domain}"
    plain, plus, _ = local.partition("+")
    if plus and plain:
        yield f"{plain}@{address.domain}"
    yield f"{local}@"
    if plus and plain:
        yield f"{plain}@"
    if address.domain:
        yield from name_forms(address.domain)
