"""SPF records read into terms; any error of syntax anywhere makes the whole record one (RFC 7208 4.6, 5, 6, 12).

record     = version terms *SP ; version = "v=spf1", terms = *( 1*SP ( directive / modifier ) )
directive  = [ qualifier ] mechanism ; qualifier = "+" / "-" / "?" / "~"
modifier   = redirect / explanation / unknown-modifier ; each of the first two at most once
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final

import msgspec

from gatepost.core.authentication.names import plain
from gatepost.core.authentication.spf.macros import MacroError, MacroString, read_domain_spec, read_macro_string
from gatepost.core.authentication.spf.result import SpfStatus

# RFC 7208 3.4 asks for records that fit 512 octets; macros can make hundreds of characters of three.
MAX_RECORD: Final = 8192

_VERSION: Final = "v=spf1"
_QUALIFIERS: Final = {"+": SpfStatus.PASS, "-": SpfStatus.FAIL, "?": SpfStatus.NEUTRAL, "~": SpfStatus.SOFTFAIL}
# 12: a modifier's name begins with a letter, which letters, digits, hyphens, underscores and dots follow.
_MODIFIER: Final = re.compile(r"([A-Za-z][A-Za-z0-9\-_.]*)=(.*)", re.ASCII)
_DIRECTIVE: Final = re.compile(r"([+\-?~]?)([A-Za-z0-9]+)(.*)", re.ASCII)
# ip4-cidr-length = "/" ("0" / %x31-39 0*1DIGIT) ; ip6-cidr-length = "/" ("0" / %x31-39 0*2DIGIT)
_DUAL_CIDR: Final = re.compile(r"(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?\Z", re.ASCII)
_IP4: Final = re.compile(r"([0-9.]+)(?:/(0|[1-9][0-9]?))?", re.ASCII)
_IP6: Final = re.compile(r"([0-9A-Fa-f:.]+)(?:/(0|[1-9][0-9]{0,2}))?", re.ASCII)

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class SpfSyntaxError(ValueError):
    """The record has an error; the message is safe to show."""


class Mechanism(msgspec.Struct, frozen=True):
    """`spec` None: the current domain. `network` for ip4 and ip6; the prefix lengths for a and mx."""

    status: SpfStatus
    name: str
    text: str
    spec: MacroString | None = None
    network: IPNetwork | None = None
    ip4_prefix: int = 32
    ip6_prefix: int = 128


class SpfRecord(msgspec.Struct, frozen=True):
    mechanisms: tuple[Mechanism, ...]
    redirect: MacroString | None = None
    explanation: MacroString | None = None


def is_record(text: str) -> bool:
    """Whether a TXT record is an SPF record at all: "v=spf1", then a space or the end (4.5)."""
    return text[:6].lower() == _VERSION and text[6:7] in ("", " ")


def read_record(text: str) -> SpfRecord:
    """Read a record that is_record() is true of. Raises SpfSyntaxError; one pass over the terms."""
    if len(text) > MAX_RECORD:
        raise SpfSyntaxError("the record is too long")
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, MacroString] = {}
    for term in text[6:].split(" "):
        modifier = _MODIFIER.fullmatch(term)
        try:
            if modifier is not None:
                _read_modifier(modifier.group(1).lower(), modifier.group(2), modifiers)
            elif term:
                mechanisms.append(_mechanism(term))
        except (MacroError, ValueError):
            raise SpfSyntaxError(f"the term {plain(term, 60)!r} is not valid") from None
    return SpfRecord(tuple(mechanisms), modifiers.get("redirect"), modifiers.get("exp"))


def _read_modifier(name: str, value: str, modifiers: dict[str, MacroString]) -> None:
    if name not in ("redirect", "exp"):
        # 6: unknown modifiers are ignored, and must still have a valid macro-string.
        read_macro_string(value)
        return
    if name in modifiers:
        raise SpfSyntaxError("a modifier stands twice")
    modifiers[name] = read_domain_spec(value)


def _mechanism(term: str) -> Mechanism:
    found = _DIRECTIVE.fullmatch(term)
    reader = _READERS.get(found.group(2).lower()) if found else None
    if found is None or reader is None:
        raise SpfSyntaxError("unknown mechanism")
    qualifier, name, rest = found.groups()
    bare = Mechanism(_QUALIFIERS[qualifier or "+"], name.lower(), plain(term, 100))
    return reader(bare, rest)


def _all(bare: Mechanism, rest: str) -> Mechanism:
    if rest:
        raise SpfSyntaxError("all takes nothing")
    return bare


def _with_domain(bare: Mechanism, rest: str) -> Mechanism:
    """include and exists: ":" domain-spec."""
    if not rest.startswith(":"):
        raise SpfSyntaxError("a domain is missing")
    return msgspec.structs.replace(bare, spec=read_domain_spec(rest[1:]))


def _with_optional_domain(bare: Mechanism, rest: str) -> Mechanism:
    return _with_domain(bare, rest) if rest else bare


def _with_prefixes(bare: Mechanism, rest: str) -> Mechanism:
    """a and mx: [ ":" domain-spec ] [ dual-cidr-length ]. A slash may stand in a domain-spec too."""
    lengths = _DUAL_CIDR.search(rest)
    assert lengths is not None  # it matches nothing at the end of everything
    ip4, ip6 = int(lengths.group(1) or 32), int(lengths.group(2) or 128)
    if ip4 > 32 or ip6 > 128:
        raise SpfSyntaxError("a prefix is too long")
    with_domain = _with_optional_domain(bare, rest[: lengths.start()])
    return msgspec.structs.replace(with_domain, ip4_prefix=ip4, ip6_prefix=ip6)


def _ip4(bare: Mechanism, rest: str) -> Mechanism:
    found = _IP4.fullmatch(rest[1:]) if rest.startswith(":") else None
    if found is None:
        raise SpfSyntaxError("no IPv4 network")
    # Leading zeros are refused by ipaddress as by qnum. Host bits may be set (5.6: only the prefix is compared).
    address = ipaddress.IPv4Address(found.group(1))
    network = ipaddress.IPv4Network(f"{address}/{found.group(2) or 32}", strict=False)
    return msgspec.structs.replace(bare, network=network)


def _ip6(bare: Mechanism, rest: str) -> Mechanism:
    found = _IP6.fullmatch(rest[1:]) if rest.startswith(":") else None
    if found is None:
        raise SpfSyntaxError("no IPv6 network")
    address = ipaddress.IPv6Address(found.group(1))
    network = ipaddress.IPv6Network(f"{address}/{found.group(2) or 128}", strict=False)
    return msgspec.structs.replace(bare, network=network)


_READERS: Final[dict[str, Callable[[Mechanism, str], Mechanism]]] = {
    "all": _all,
    "include": _with_domain,
    "exists": _with_domain,
    "ptr": _with_optional_domain,
    "a": _with_prefixes,
    "mx": _with_prefixes,
    "ip4": _ip4,
    "ip6": _ip6,
}
