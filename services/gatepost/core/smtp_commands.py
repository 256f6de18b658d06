"""SMTP command lines -> values, without I/O (RFC 5321 4.1.1, RFC 1870 3, RFC 6152 2, RFC 6531 3.4, RFC 4954 5,
RFC 3461 4).

    mail = "MAIL FROM:" Reverse-path [SP Mail-parameters] CRLF
    rcpt = "RCPT TO:" ( "<Postmaster>" / Forward-path ) [SP Rcpt-parameters] CRLF

Two habits of old clients are taken: a space behind the colon and, for an address that needs no quoting, missing
angle brackets. Neither can change whom a command names.
"""

from __future__ import annotations

import re
from typing import Final

from gatepost.core.address import AddressError, Path
from gatepost.core.envelope import BodyType
from gatepost.core.parsed_commands import MailCommand, RcptCommand
from gatepost.core.reply import Reply
from gatepost.core.smtp_path import parse_path
from gatepost.core.smtp_replies import (
    HELO_SYNTAX,
    MAIL_SYNTAX,
    NEEDS_SMTPUTF8,
    PARAMETER_SYNTAX,
    RCPT_SYNTAX,
    UNKNOWN_PARAMETER,
    bad_address,
)
from gatepost.core.xtext import XtextError, decode_utf8_address, decode_xtext

# RFC 5321 4.5.3.1.4: 512 octets with CRLF; an extension states by how much it makes a command longer.
MAX_COMMAND_LINE: Final = 512
# SIZE: 26 (RFC 1870 3), BODY: 17 (RFC 6152 2), SMTPUTF8: 10 (RFC 6531 3.4), AUTH: 500 (RFC 4954 3),
# RET and ENVID with their spaces: 9 and 107 (RFC 3461 4.3, 4.4).
MAX_MAIL_LINE: Final = MAX_COMMAND_LINE + 26 + 17 + 10 + 500 + 9 + 107
# NOTIFY=SUCCESS,FAILURE,DELAY and ORCPT of at most 500 characters, with their spaces (RFC 3461 4.1, 4.2).
MAX_RCPT_LINE: Final = MAX_COMMAND_LINE + 29 + 507
# RFC 4954 4: a server should take lines of 12288 octets during authentication.
MAX_AUTH_LINE: Final = 12288

MAX_ENVID: Final = 100  # RFC 3461 4.4
MAX_ORCPT: Final = 500  # RFC 3461 4.2

MAX_HELO: Final = 255  # RFC 5321 4.5.3.1.2

# Runs of characters at once: one at a time, a path would cost more than all else that a command is read for.
_PATH: Final = r""": *(?:<([^"<>]*(?:"(?:[^"\\]|\\.)*"[^"<>]*)*)>|([^\s<>",:]+))(?: +(.*))?"""
_MAIL = re.compile("FROM" + _PATH, re.IGNORECASE)
_RCPT = re.compile("TO" + _PATH, re.IGNORECASE)
# esmtp-param = esmtp-keyword ["=" esmtp-value]; esmtp-value = 1*(%d33-60 / %d62-126), RFC 6531 adds UTF-8
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e\x80-\U0010ffff]+))?")
_SIZE = re.compile(r"[0-9]{1,20}", re.ASCII)  # RFC 1870 4: size-value = 1*20DIGIT
_BODY_TYPES: Final = {body.value: body for body in BodyType}
_NOTIFY: Final = frozenset({"SUCCESS", "FAILURE", "DELAY"})
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]{1,63}")
# Names of clients are wrong in many ways and mean little: anything printable without a space or bracket trick.
_HELO = re.compile(r"[!#-'*-;=?-\[\]-~]+")


class CommandError(Exception):
    """A command that cannot be obeyed; `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


def parse_helo(argument: bytes) -> str:
    """Return the client's name. Raises CommandError when there is none or it cannot be written in a header."""
    try:
        name = argument.decode("ascii")
    except UnicodeDecodeError:
        raise CommandError(HELO_SYNTAX) from None  # RFC 6531 3.7.1: A-labels here
    if len(name) > MAX_HELO or _HELO.fullmatch(name) is None:
        raise CommandError(HELO_SYNTAX)
    return name


def parse_mail(argument: bytes, *, extended: bool) -> MailCommand:
    """Parse what follows MAIL; parameters count only after EHLO. Raises CommandError."""
    found = _MAIL.fullmatch(argument.decode("utf-8", "surrogateescape"))
    if found is None:
        raise CommandError(MAIL_SYNTAX)
    parameters = found.group(3)
    values = _MailParameters()
    if parameters:
        if not extended:
            raise CommandError(UNKNOWN_PARAMETER)
        values.read(parameters)
    path = _path(found, "5.1.7", utf8=values.smtputf8)  # RFC 3463 3.2 X.1.7: bad sender's address syntax
    if path.address is not None and not path.address.domain:
        raise CommandError(bad_address(501, "5.1.7", "a domain is missing"))
    return MailCommand(
        path.address, path.source_route, values.size, values.body, values.smtputf8, values.ret, values.envid
    )


def parse_rcpt(argument: bytes, *, utf8: bool, extended: bool = True) -> RcptCommand:
    """Parse what follows RCPT; `utf8` when MAIL had SMTPUTF8, `extended` after EHLO. Raises CommandError."""
    found = _RCPT.fullmatch(argument.decode("utf-8", "surrogateescape"))
    if found is None:
        raise CommandError(RCPT_SYNTAX)
    parameters: dict[str, str | None] = {}
    if found.group(3):
        parameters = _split_parameters(found.group(3))
        if not extended or not parameters.keys() <= {"NOTIFY", "ORCPT"}:
            raise CommandError(UNKNOWN_PARAMETER)  # RFC 5321 4.1.1.11
    notify, orcpt = _notify(parameters), _orcpt(parameters, utf8=utf8)
    path = _path(found, "5.1.3", utf8=utf8)  # RFC 3463 3.2 X.1.3: bad destination address syntax
    if path.address is None:
        raise CommandError(bad_address(501, "5.1.3", "a recipient is missing"))
    named = found.group(1) or found.group(2)
    if path.source_route:
        named = named.partition(":")[2]
    return RcptCommand(path.address, named, path.source_route, notify, orcpt)


def _path(found: re.Match[str], enhanced: str, *, utf8: bool) -> Path:
    inner = found.group(1)
    text = f"<{found.group(2) if inner is None else inner}>"
    if not utf8 and not text.isascii():
        raise CommandError(NEEDS_SMTPUTF8)  # RFC 6531 3.5
    try:
        return parse_path(text)
    except AddressError as error:
        raise CommandError(bad_address(501, enhanced, error.reason)) from None


class _MailParameters:
    """The parameters of MAIL as they are read."""

    def __init__(self) -> None:
        self.size = 0
        self.body = BodyType.SEVEN_BIT
        self.smtputf8 = False
        self.ret = ""
        self.envid = ""

    def read(self, text: str) -> None:
        for keyword, value in _split_parameters(text).items():
            match keyword:
                case "SIZE" if value is not None and _SIZE.fullmatch(value):
                    self.size = int(value)
                case "BODY" if value is not None and value.upper() in _BODY_TYPES:
                    self.body = _BODY_TYPES[value.upper()]
                case "SMTPUTF8" if value is None:
                    self.smtputf8 = True
                case "AUTH" if value is not None:
                    pass  # RFC 4954 5: a server that does not trust the client goes on as with AUTH=<>
                case "RET" if value is not None and value.upper() in ("FULL", "HDRS"):
                    self.ret = value  # RFC 3461 4.3
                case "ENVID" if value is not None and _is_xtext(value, MAX_ENVID):
                    self.envid = value  # RFC 3461 4.4
                case "SIZE" | "BODY" | "SMTPUTF8" | "AUTH" | "RET" | "ENVID":
                    raise CommandError(PARAMETER_SYNTAX)
                case _:
                    raise CommandError(UNKNOWN_PARAMETER)


def _notify(parameters: dict[str, str | None]) -> str:
    """RFC 3461 4.1: NEVER alone, or a list out of SUCCESS, FAILURE and DELAY. Raises CommandError."""
    if "NOTIFY" not in parameters:
        return ""
    value = parameters["NOTIFY"] or ""
    words = value.upper().split(",")
    if words != ["NEVER"] and (not set(words) <= _NOTIFY or len(set(words)) != len(words)):
        raise CommandError(PARAMETER_SYNTAX)
    return value


def _orcpt(parameters: dict[str, str | None], *, utf8: bool) -> str:
    """RFC 3461 4.2: addr-type ";" xtext; of type utf-8 as RFC 6533 3 has it. Raises CommandError."""
    if "ORCPT" not in parameters:
        return ""
    value = parameters["ORCPT"] or ""
    kind, semicolon, address = value.partition(";")
    if not semicolon or _ADDRESS_TYPE.fullmatch(kind) is None or not address or len(value) > MAX_ORCPT:
        raise CommandError(PARAMETER_SYNTAX)
    if kind.lower() == "utf-8":
        if not utf8 and not address.isascii():
            raise CommandError(NEEDS_SMTPUTF8)  # RFC 6533 3: utf-8-address only with SMTPUTF8
        try:
            decode_utf8_address(address)
        except XtextError:
            raise CommandError(PARAMETER_SYNTAX) from None
    elif not _is_xtext(address, MAX_ORCPT):
        raise CommandError(PARAMETER_SYNTAX)
    return value


def _is_xtext(text: str, longest: int) -> bool:
    if len(text) > longest:
        return False
    try:
        decode_xtext(text)
    except XtextError:
        return False
    return True


def _split_parameters(text: str) -> dict[str, str | None]:
    """Keywords in upper case -> values with their case kept."""
    values: dict[str, str | None] = {}
    for part in text.split():
        found = _PARAMETER.fullmatch(part)
        if found is None or found.group(1).upper() in values:
            raise CommandError(PARAMETER_SYNTAX)
        values[found.group(1).upper()] = found.group(2)
    return values
