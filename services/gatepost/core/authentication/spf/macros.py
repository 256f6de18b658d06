"""Macro strings of SPF: read once into parts, expanded when needed (RFC 7208 7).

macro-string  = *( macro-expand / macro-literal )
macro-expand  = ( "%{" macro-letter transformers *delimiter "}" ) / "%%" / "%_" / "%-"
macro-literal = %x21-24 / %x26-7E
domain-spec   = macro-string domain-end
domain-end    = ( "." toplabel [ "." ] ) / macro-expand
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

import msgspec

from gatepost.core.authentication.names import MAX_NAME
from gatepost.core.networks import IPAddress

_EXPAND: Final = re.compile(r"%(?:\{([slodiphcrtvSLODIPHCRTV])([0-9]*)([rR]?)([.\-+,/_=]*)\}|([%_-]))")
_LITERAL: Final = re.compile(r"[\x21-\x24\x26-\x7e]+")
_LITERAL_WITH_SPACE: Final = re.compile(r"[\x20-\x24\x26-\x7e]+")
# toplabel = ( *alphanum ALPHA *alphanum ) / ( 1*alphanum "-" *( alphanum / "-" ) alphanum )
_TOP_LABEL: Final = re.compile(r"(?=.*[A-Za-z-])[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?", re.ASCII)
_ESCAPES: Final = {"%": "%", "_": " ", "-": "%20"}
_ONLY_IN_EXPLANATIONS: Final = frozenset("crt")  # 7.2
_MOST_PARTS: Final = 999  # a name or an address has fewer: all of them (7.1 sets no limit)


class MacroError(ValueError):
    """The text is no macro string."""


class Macro(msgspec.Struct, frozen=True):
    """%{letter digits r delimiters}. `keep` 0: all parts."""

    letter: str
    keep: int
    reverse: bool
    delimiters: str
    url: bool  # an upper-case letter: URL-escaped


MacroString = tuple[str | Macro, ...]


class MacroValues(msgspec.Struct, frozen=True):
    """What the letters stand for in one check (7.2). `validated`: the value of p. `now` in seconds since 1970."""

    client: IPAddress
    helo: str
    local: str
    sender_domain: str
    domain: str
    receiver: str
    now: int
    validated: str = "unknown"


def read_macro_string(text: str, *, explanation: bool = False) -> MacroString:
    """Read a macro-string, for explanations also spaces and the letters c, r, t. Raises MacroError."""
    literal = _LITERAL_WITH_SPACE if explanation else _LITERAL
    return tuple(
        found.group() if found.re is literal else _part(found, explanation) for found in _tokens(text, literal)
    )


def read_domain_spec(text: str) -> MacroString:
    """Read a domain-spec. Raises MacroError."""
    parts = read_macro_string(text)
    *_, last = _tokens(text, _LITERAL) if text else [None]
    if last is None:
        raise MacroError("a domain is empty")
    if last.re is _LITERAL:
        # A literal goes as far as it can, so that the dot of domain-end stands in it too.
        _, dot, label = last.group().removesuffix(".").rpartition(".")
        if not dot or _TOP_LABEL.fullmatch(label) is None:
            raise MacroError("a domain does not end as one")
    return parts


def _tokens(text: str, literal: re.Pattern[str]) -> Iterator[re.Match[str]]:
    at = 0
    while at < len(text):
        found = literal.match(text, at) or _EXPAND.match(text, at)
        if found is None:
            raise MacroError("a macro is not valid")
        at = found.end()
        yield found


def uses(parts: MacroString, letter: str) -> bool:
    return any(isinstance(part, Macro) and part.letter == letter for part in parts)


def expand(parts: MacroString, values: MacroValues) -> str:
    return "".join(part if isinstance(part, str) else _expanded(part, values) for part in parts)


def expand_domain(parts: MacroString, values: MacroValues) -> str | None:
    """Return the name to ask for: without the final dot, shortened from the left to 253 characters (7.3).

    None for what no name can be made of: a character that is not ASCII (RFC 8616 4: it matches nothing).
    """
    name = expand(parts, values).removesuffix(".").lower()
    if not name.isascii():
        return None
    while len(name) > MAX_NAME:
        _, dot, rest = name.partition(".")
        name = rest if dot else ""
    return name or None


def _part(found: re.Match[str], explanation: bool) -> str | Macro:
    letter, digits, reverse, delimiters, escape = found.groups()
    if escape:
        return _ESCAPES[escape]
    if letter.lower() in _ONLY_IN_EXPLANATIONS and not explanation:
        raise MacroError(f"the macro {letter} stands in explanations only")
    # 7.1: the DIGIT transformer must be nonzero when it is there.
    if digits and not digits.strip("0"):
        raise MacroError("a macro keeps zero parts")
    wanted = digits.lstrip("0")
    keep = int(wanted or "0") if len(wanted) <= 3 else _MOST_PARTS
    return Macro(letter.lower(), keep, bool(reverse), delimiters or ".", letter.isupper())


def _expanded(macro: Macro, values: MacroValues) -> str:
    text = _value(macro.letter, values)
    if macro.keep or macro.reverse or macro.delimiters != ".":
        pieces = re.split(f"[{re.escape(macro.delimiters)}]", text)
        if macro.reverse:
            pieces.reverse()
        text = ".".join(pieces[-macro.keep :] if macro.keep else pieces)
    return quote(text, safe="-._~") if macro.url else text


def _value(letter: str, values: MacroValues) -> str:
    match letter:
        case "s":
            return f"{values.local}@{values.sender_domain}"
        case "l":
            return values.local
        case "o":
            return values.sender_domain
        case "d":
            return values.domain
        case "i":
            return _dotted(values.client)
        case "p":
            return values.validated
        case "h":
            return values.helo
        case "c":
            return str(values.client)
        case "r":
            return values.receiver
        case "t":
            return str(values.now)
        case _:
            return "in-addr" if values.client.version == 4 else "ip6"


def _dotted(address: IPAddress) -> str:
    """An IPv6 address has its 32 nibbles with dots between them (7.3); in capitals, as the RFC's suite has them."""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return ".".join(address.exploded.replace(":", "").upper())
