"""Next hops as users write them: "name" (its MX), "[name]" or "[IP]" (no MX), each with ":port"."""

from __future__ import annotations

import ipaddress

import msgspec

from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.endpoints import port_number


class HostError(ValueError):
    """The text is no next hop; the message says why."""


class NextHop(msgspec.Struct, frozen=True):
    """`host` is a canonical domain or an IP address; `port` 0 means the usual one."""

    host: str
    use_mx: bool
    port: int = 0

    @property
    def is_ip(self) -> bool:
        return ":" in self.host or self.host.replace(".", "").isdigit()


def parse_host(text: str) -> NextHop:
    """Read a next hop. Raises HostError."""
    if text.startswith("["):
        inner, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise HostError(f"{text!r}: the closing bracket is missing")
        return NextHop(_name_or_ip(inner, text), False, _port(rest, text))
    name, colon, port = text.partition(":")
    if _is_ip(name):
        raise HostError(f"{text!r}: write an IP address in brackets, as [{name}]")
    return NextHop(_name_or_ip(name, text), True, _port(colon + port, text))


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _name_or_ip(text: str, whole: str) -> str:
    bare = text[5:] if text[:5].lower() == "ipv6:" else text
    if _is_ip(bare):
        return str(ipaddress.ip_address(bare))
    try:
        return canonical_domain(text)
    except DomainError as error:
        raise HostError(f"{whole!r}: {error}") from None


def _port(rest: str, whole: str) -> int:
    if not rest:
        return 0
    port = port_number(rest[1:])
    if not rest.startswith(":") or port is None:
        raise HostError(f"{whole!r}: the port is a number from 1 to 65535 behind a colon")
    return port
