"""XCLIENT, Postfix's SMTP extension: a trusted host says whose session it passes on (XCLIENT_README).

    xclient-command = "XCLIENT" 1*( SP attribute-name "=" attribute-value )
    attribute-name  = "NAME" / "ADDR" / "PORT" / "PROTO" / "HELO" / "LOGIN"
    attribute-value = xtext (RFC 3461 4) / "[UNAVAILABLE]" / "[TEMPUNAVAIL]"

An attribute that is not there stays as it was; one that is unavailable is taken as unknown.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import msgspec

from gatepost.core.smtp_commands import MAX_HELO, CommandError, parse_helo
from gatepost.core.smtp_replies import XCLIENT_SYNTAX
from gatepost.core.xtext import XtextError, decode_xtext

ATTRIBUTES: Final = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN")
KEYWORD: Final = "XCLIENT " + " ".join(ATTRIBUTES)
# A line has at most six attributes of at most 255 octets, each of which xtext can make three.
MAX_XCLIENT_LINE: Final = 6 * (3 * 255 + 8)

_UNKNOWN: Final = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})
_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")
_LOGIN = re.compile(r"[^\x00-\x20\x7f]{1,255}")


class Override(msgspec.Struct, frozen=True):
    """What the trusted host says of the client. None: not said; "" or 0: said to be unknown."""

    name: str | None = None
    address: str | None = None
    port: int | None = None
    extended: bool | None = None
    helo: str | None = None
    login: str | None = None


def parse_xclient(argument: bytes) -> Override:
    """Parse what follows XCLIENT. Raises CommandError."""
    try:
        words = argument.decode("ascii").split()
    except UnicodeDecodeError:
        raise CommandError(XCLIENT_SYNTAX) from None
    if not words:
        raise CommandError(XCLIENT_SYNTAX)
    values: dict[str, str] = {}
    for word in words:
        keyword, equals, value = word.partition("=")
        if not equals or keyword.upper() not in ATTRIBUTES or keyword.upper() in values:
            raise CommandError(XCLIENT_SYNTAX)
        try:
            values[keyword.upper()] = "" if value.upper() in _UNKNOWN else _some(decode_xtext(value))
        except XtextError:
            raise CommandError(XCLIENT_SYNTAX) from None
    return Override(
        name=_matching(_NAME, values.get("NAME")),
        address=_address(values.get("ADDR")),
        port=_port(values.get("PORT")),
        extended=_protocol(values.get("PROTO")),
        helo=_helo(values.get("HELO")),
        login=_matching(_LOGIN, values.get("LOGIN")),
    )


def _some(value: str) -> str:
    if not value:
        raise CommandError(XCLIENT_SYNTAX)
    return value


def _matching(form: re.Pattern[str], value: str | None) -> str | None:
    if value and form.fullmatch(value) is None:
        raise CommandError(XCLIENT_SYNTAX)
    return value


def _address(value: str | None) -> str | None:
    """An IPv4 address, or an IPv6 one behind "IPV6:", which some leave out; IPv4 in IPv6 as IPv4."""
    if not value:
        return value
    six = value[:5].upper() == "IPV6:"
    try:
        address = ipaddress.ip_address(value[5:] if six else value)
    except ValueError:
        raise CommandError(XCLIENT_SYNTAX) from None
    if isinstance(address, ipaddress.IPv4Address):
        if six:
            raise CommandError(XCLIENT_SYNTAX)
        return str(address)
    if address.scope_id is not None:
        raise CommandError(XCLIENT_SYNTAX)  # a zone means something on its own host only (RFC 4007 11)
    return str(address.ipv4_mapped or address)


def _port(value: str | None) -> int | None:
    if value is None:
        return None
    if value == "":
        return 0
    if not re.fullmatch(r"[0-9]{1,5}", value, re.ASCII) or int(value) > 65535:
        raise CommandError(XCLIENT_SYNTAX)
    return int(value)


def _protocol(value: str | None) -> bool | None:
    if not value:
        return None
    if value.upper() not in ("SMTP", "ESMTP"):
        raise CommandError(XCLIENT_SYNTAX)
    return value.upper() == "ESMTP"


def _helo(value: str | None) -> str | None:
    if not value:
        return value
    if len(value) > MAX_HELO:
        raise CommandError(XCLIENT_SYNTAX)
    try:
        return parse_helo(value.encode("utf-8"))
    except CommandError:
        raise CommandError(XCLIENT_SYNTAX) from None
