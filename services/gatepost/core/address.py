"""Mail addresses as RFC 5321 writes them in MAIL and RCPT, and with RFC 6531 in UTF-8.

Grammar implemented (RFC 5321 4.1.2, extended by RFC 6531 3.3; paths in smtp_path.py):

    Mailbox     = Local-part "@" ( Domain / address-literal )
    Local-part  = Dot-string / Quoted-string

Limits: local part 64 octets (4.5.3.1.1), domain 255 (4.5.3.1.2).
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

import msgspec

from gatepost.core.domain import DomainError, canonical_domain, display_domain

MAX_LOCAL_PART = 64

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]"
# The usual case in one match: an ASCII dot-string at an ASCII host name.
_SIMPLE = re.compile(
    rf"({_ATEXT}+(?:\.{_ATEXT}+)*)@"
    r"([A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*)"
)
# Dot-string = Atom *("."  Atom); RFC 6531 adds every UTF8-non-ascii character to atext.
_DOT_STRING = re.compile(rf"(?:{_ATEXT}|[^\x00-\x7f])+(?:\.(?:{_ATEXT}|[^\x00-\x7f])+)*")
# Quoted-string = DQUOTE *QcontentSMTP DQUOTE; qtextSMTP = %d32-33 / %d35-91 / %d93-126;
# quoted-pairSMTP = "\" %d32-126
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|[^\x00-\x7f]|\\[\x20-\x7e])*)"')
_NEEDS_QUOTES = re.compile(r"[\x20\"(),:;<>@\[\\\]]|^\.|\.$|\.\.|^$")


class AddressError(ValueError):
    """The text is no address. `reason` is for people and safe to show to an SMTP client."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Address(msgspec.Struct, frozen=True):
    """One mailbox: `local` without quotes and escapes, case kept; `domain` canonical, or a literal in brackets.

    Two addresses are the same mailbox for us when `key` is equal: the local part is compared without regard
    to case, as every directory that we serve does (RFC 5321 2.4 leaves that to the receiving host).
    """

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{quote_local(self.local)}@{self.domain}"

    @property
    def key(self) -> str:
        return f"{self.local.lower()}@{self.domain}"

    @property
    def is_literal(self) -> bool:
        return self.domain.startswith("[")

    @property
    def needs_smtputf8(self) -> bool:
        """Whether the local part can only travel with SMTPUTF8 (RFC 6531 3.1); the domain has A-labels."""
        return not self.local.isascii()

    @property
    def display(self) -> str:
        return f"{quote_local(self.local)}@{display_domain(self.domain)}"


class Path(msgspec.Struct, frozen=True):
    """A path of MAIL or RCPT: the mailbox, None for the null reverse-path, and the source route as written."""

    address: Address | None
    source_route: str = ""


def quote_local(local: str) -> str:
    """Return the local part as it is written in a path, quoted only where RFC 5321 4.1.2 needs it."""
    if _NEEDS_QUOTES.search(local) is None:
        return local
    escaped = local.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@lru_cache(maxsize=65536)
def parse_address(text: str) -> Address:
    """Parse a Mailbox. Raises AddressError with a reason that names the first thing wrong."""
    simple = _SIMPLE.fullmatch(text)
    if simple is not None:
        local, domain = simple.groups()
    else:
        local, domain = _split(text)
    if len(local.encode("utf-8", "surrogateescape")) > MAX_LOCAL_PART:
        raise AddressError(f"the local part is longer than {MAX_LOCAL_PART} octets")
    if domain.startswith("["):
        return Address(local, _literal(domain))
    try:
        return Address(local, canonical_domain(domain))
    except DomainError:
        raise AddressError("the domain is not valid") from None


def _split(text: str) -> tuple[str, str]:
    """Split into the unquoted local part and the domain text, for everything that is not the usual case."""
    quoted = _QUOTED.match(text)
    if quoted is not None:
        local = re.sub(r"\\(.)", r"\1", quoted.group(1))
        rest = text[quoted.end() :]
    else:
        dot_string = _DOT_STRING.match(text)
        if dot_string is None:
            raise AddressError("the local part is missing or not valid")
        local = dot_string.group()
        rest = text[dot_string.end() :]
    if not rest:
        raise AddressError("a domain is missing")
    if not rest.startswith("@"):
        raise AddressError("the local part has a character that must be quoted")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise AddressError("the address is not valid UTF-8")
    if len(rest) == 1:
        raise AddressError("the domain is empty")
    return local, rest[1:]


def _literal(text: str) -> str:
    """Canonical form of an address literal (RFC 5321 4.1.3); general literals are refused."""
    if not text.endswith("]"):
        raise AddressError("the address literal has no closing bracket")
    inner = text[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError:
        raise AddressError("the address literal is not an IP address") from None
