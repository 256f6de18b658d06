"""The author domains of a message: the domains of all addresses in its From field (RFC 9989 5.3.1, 11.5).

    from    = "From:" (mailbox-list / address-list) CRLF             (RFC 5322 3.6.2, RFC 6854)
    mailbox = name-addr / addr-spec ; name-addr = [display-name] "<" addr-spec ">"

A field that is not of this form has no author that could be judged: one parser would show another address than
the next. Linear in the field's size.
"""

from __future__ import annotations

import re
from typing import Final

from gatepost.core.authentication.names import dns_name
from gatepost.core.headers import Field

# Each costs a walk of up to eight questions; more authors are no mail of people (11.5).
MAX_AUTHOR_DOMAINS: Final = 4

_FOLD: Final = re.compile(r"\r\n(?=[ \t])")
# Tokens: white space, quoted-string, domain-literal, atoms with dots (obsolete phrases and UTF-8 too), specials.
_TOKEN: Final = re.compile(
    r'(?P<space>[ \t]+)|(?P<quoted>"(?:[^"\\\r\n]|\\[^\r\n])*")|(?P<literal>\[[^\[\]\\]*\])'
    r"|(?P<atom>[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.\x80-\U0010ffff]+)|(?P<special>[<>@,;:])"
)


class AuthorError(ValueError):
    """There is no author domain to judge; `reason` is safe to show."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def author_domains(fields: tuple[Field, ...]) -> tuple[str, ...]:
    """Return the author domains in A-labels, each once, in order. Raises AuthorError."""
    found = [field for field in fields if field.name == b"from"]
    if not found:
        raise AuthorError("no From field")
    if len(found) > 1:
        raise AuthorError("several From fields")
    # A display-name in another character set than UTF-8 is old and common; a domain of such octets is none.
    return from_domains(found[0].value.decode("utf-8", "surrogateescape"))


def from_domains(value: str) -> tuple[str, ...]:
    """As author_domains, of the field's value."""
    domains: list[str] = []
    mailbox: list[tuple[str, str]] = []
    in_group = False
    for kind, text in _tokens(_FOLD.sub("", value)):
        if text in (",", ";") and kind == "special":
            _add(domains, mailbox)
            mailbox = []
            if text == ";" and not in_group:
                raise AuthorError("From is not a list of addresses")
            in_group = in_group and text == ","
        elif text == ":" and kind == "special" and not in_group and _is_phrase(mailbox):
            in_group, mailbox = True, []  # RFC 6854: a group, maybe an empty one
        else:
            mailbox.append((kind, text))
    if in_group:
        raise AuthorError("From is not a list of addresses")
    _add(domains, mailbox)
    if not domains:
        raise AuthorError("From has no address")
    return tuple(dict.fromkeys(domains))


def _add(domains: list[str], mailbox: list[tuple[str, str]]) -> None:
    """Add the domain of one mailbox.

    Nothing between commas is an obsolete list's empty place (RFC 5322 4.4); words alone are a part of a
    display-name with a comma that should be quoted.
    """
    if not mailbox or _is_phrase(mailbox):
        return
    texts = [text if kind == "special" else "" for kind, text in mailbox]
    if "<" in texts:
        start = texts.index("<")
        # A display-name with characters that should be quoted, an address even, is common and misleads no parser.
        if texts[-1] != ">" or ">" in texts[:-1]:
            raise AuthorError("From is not a list of addresses")
        mailbox = mailbox[start + 1 : -1]
    # addr-spec = local-part "@" domain
    kinds = [kind for kind, _ in mailbox]
    if len(mailbox) != 3 or mailbox[1][1] != "@" or kinds[0] not in ("atom", "quoted") or kinds[2] != "atom":
        raise AuthorError("From is not a list of addresses")
    domain = dns_name(mailbox[2][1])
    if domain is None:
        raise AuthorError("the domain in From is not valid")
    domains.append(domain)


def _is_phrase(mailbox: list[tuple[str, str]]) -> bool:
    return bool(mailbox) and all(kind in ("atom", "quoted") for kind, _ in mailbox)


def _tokens(text: str) -> list[tuple[str, str]]:
    """Cut into tokens without space and comments. Raises AuthorError for what is none."""
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        if text[at] == "(":
            at = _comment_end(text, at)
            continue
        found = _TOKEN.match(text, at)
        if found is None:
            raise AuthorError("From is not a list of addresses")
        if found.lastgroup != "space":
            tokens.append((str(found.lastgroup), found.group()))
        at = found.end()
    return tokens


def _comment_end(text: str, at: int) -> int:
    """The offset behind a comment, which may hold others (RFC 5322 3.2.2). Raises AuthorError for an open one."""
    depth = 0
    while at < len(text):
        character = text[at]
        if character == "\\":
            at += 1
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    raise AuthorError("From is not a list of addresses")
