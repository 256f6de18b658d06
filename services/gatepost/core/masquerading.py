"""Masquerading: names of inner hosts in senders' addresses are replaced by the domain that the world shall see.

As sendmail's MASQUERADE_AS with its relatives does it, for the sender's side only: header fields From, Sender,
Reply-To and their Resent- forms (RFC 5322 3.6.2, 3.6.6), and where wanted the reverse-path. Recipients' fields
stay. Of a field only the domain of an addr-spec (3.4.1) is replaced; names, comments, folding and quoting stay
octet for octet, and what cannot be read without doubt stays as a whole. A domain with white space or comments
inside it (obs-domain, 4.4) is left, too, and so is a header whose senders' fields have more than MAX_OCTETS. Linear
in the header's size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from gatepost.core.address import Address, AddressError, parse_address
from gatepost.core.domain import MAX_DOMAIN, DomainError, canonical_domain
from gatepost.core.headers import Field, read_header, spans

_SENDER_FIELDS: Final = frozenset(
    (b"from", b"sender", b"reply-to", b"resent-from", b"resent-sender", b"resent-reply-to")
)
MAX_OCTETS: Final = 32 * 1024  # over a thousand addresses; reading more would hold up everybody else's mail
_MAX_DOMAIN_OCTETS: Final = 4 * MAX_DOMAIN  # a name in UTF-8 has at most four octets for each character

# The pieces of structured fields (RFC 5322 3.2): each alternative begins with an octet of its own and gives nothing
# back, so that a field is read in one pass. An atom has its dots with it (dot-atom) and any octet above 127.
_TOKEN: Final = re.compile(
    rb"""(?P<space>[ \t\r\n]++)
        |(?P<atom>[^\x00-\x20()<>\[\]:;@\\,"\x7f]++)
        |(?P<quoted>"(?:[^"\\]|\\.)*+")
        |(?P<literal>\[(?:[^\[\]\\]|\\.)*+\])
        |(?P<special>[<>@,:;])
        |(?P<open>\()""",
    re.VERBOSE | re.DOTALL,
)
_IN_COMMENT: Final = re.compile(rb"[^()\\]++|\\.|[()]", re.DOTALL)


class MasqueradePlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """Canonical `domains` (with `entire` also all below them) are shown as `as_domain`.

    `exposed`: local parts, in lower case, that keep their host. `envelope`: the reverse-path is rewritten as well.
    """

    as_domain: str
    domains: tuple[str, ...]
    entire: bool = False
    envelope: bool = False
    exposed: tuple[str, ...] = ()

    def covers(self, domain: str) -> bool:
        """Whether addresses at a canonical domain are rewritten, unless their user is exposed."""
        if domain == self.as_domain:
            return False
        return domain in self.domains or (
            self.entire and any(domain.endswith(f".{listed}") for listed in self.domains)
        )

    def hides(self, local: str, domain: str) -> bool:
        """The same for one address; `local` without quotes."""
        return self.covers(domain) and local.lower() not in self.exposed


class MasqueradeTable:
    """Finds the plan of a domain that no MailDomain serves; of two that cover it the first one counts."""

    def __init__(self, plans: Iterable[MasqueradePlan]) -> None:
        self._exact: dict[str, MasqueradePlan] = {}
        self._above: dict[str, MasqueradePlan] = {}
        for plan in plans:
            for domain in plan.domains:
                self._exact.setdefault(domain, plan)
                if plan.entire:
                    self._above.setdefault(domain, plan)

    def __bool__(self) -> bool:
        return bool(self._exact)

    def covering(self, domain: str) -> MasqueradePlan | None:
        """The plan that rewrites addresses at a canonical domain: that of the nearest name listed."""
        plan = self._exact.get(domain)
        parent = domain
        while plan is None and "." in parent:
            parent = parent.split(".", 1)[1]
            plan = self._above.get(parent)
        return plan


def masquerade_path(reverse_path: str, plan: MasqueradePlan) -> str:
    """The reverse-path that goes out. The null sender, and what is no address, stay."""
    if not plan.envelope or not reverse_path:
        return reverse_path
    try:
        address = parse_address(reverse_path)
    except AddressError:
        return reverse_path
    if not plan.hides(address.local, address.domain):
        return reverse_path
    return str(Address(address.local, plan.as_domain))


def masquerade_header(header: bytes, plan: MasqueradePlan) -> bytes:
    """A header, without the empty line, with the sender's fields rewritten; or itself."""
    found = spans(header, lambda field: field.name in _SENDER_FIELDS)
    if sum(octets for _, octets in found) > MAX_OCTETS:
        return header
    parts: list[bytes] = []
    at = 0
    for offset, octets in found:
        end = offset + octets
        run = header[offset:end]
        rewritten = b"\r\n".join(_rewritten(field, plan) for field in read_header(run))
        if run.endswith(b"\r\n"):
            rewritten += b"\r\n"
        if rewritten != run:
            parts += (header[at:offset], rewritten)
            at = end
    return b"".join((*parts, header[at:])) if parts else header


class _Token(msgspec.Struct, frozen=True, gc=False):
    """`kind` is atom, quoted, literal, or the special character itself; offsets are in the field's value."""

    kind: str
    start: int
    end: int


def _rewritten(field: Field, plan: MasqueradePlan) -> bytes:
    value = field.value
    tokens = _tokens(value)
    if tokens is None:
        return field.raw
    parts: list[bytes] = []
    at = 0
    for local, domain in _addr_specs(tokens):
        name = _domain(value[domain.start : domain.end])
        if name is not None and plan.hides(_local(value, local), name):
            parts += (value[at : domain.start], plan.as_domain.encode("ascii"))
            at = domain.end
    return b"".join((field.raw[: field.colon], *parts, value[at:])) if parts else field.raw


def _tokens(value: bytes) -> list[_Token] | None:
    """The value without white space and comments; None when it is broken (a quote or comment that never ends)."""
    tokens: list[_Token] = []
    at = 0
    while at < len(value):
        found = _TOKEN.match(value, at)
        if found is None:
            return None
        kind, at = str(found.lastgroup), found.end()
        if kind == "open":
            end = _comment_end(value, at)
            if end is None:
                return None
            at = end
        elif kind == "special":
            tokens.append(_Token(found.group().decode("ascii"), found.start(), at))
        elif kind != "space":
            tokens.append(_Token(kind, found.start(), at))
    return tokens


def _comment_end(value: bytes, at: int) -> int | None:
    """Where a comment that begins before `at` ends; comments nest (RFC 5322 3.2.2)."""
    depth = 1
    while depth:
        found = _IN_COMMENT.match(value, at)
        if found is None:
            return None
        at = found.end()
        if found.group() == b"(":
            depth += 1
        elif found.group() == b")":
            depth -= 1
    return at


def _addr_specs(tokens: Sequence[_Token]) -> Iterator[tuple[Sequence[_Token], _Token]]:
    """(local part, domain) of each mailbox that can be read without doubt, in the order of the field."""
    for mailbox in _mailboxes(tokens):
        kinds = [token.kind for token in mailbox]
        if "<" in kinds or ">" in kinds:
            first = kinds.index("<") if "<" in kinds else len(kinds)
            # angle-addr is the last of a mailbox (RFC 5322 3.4); a second bracket leaves doubt.
            if kinds[-1] != ">" or kinds.count("<") != 1 or kinds.count(">") != 1:
                continue
            mailbox, kinds = mailbox[first + 1 : -1], kinds[first + 1 : -1]
            if ":" in kinds:  # obs-route (4.4): the addr-spec stands behind it
                last = len(kinds) - 1 - kinds[::-1].index(":")
                mailbox, kinds = mailbox[last + 1 :], kinds[last + 1 :]
        if kinds[-2:] == ["@", "atom"] and _is_local(mailbox[:-2]):
            yield mailbox[:-2], mailbox[-1]


def _mailboxes(tokens: Sequence[_Token]) -> Iterator[list[_Token]]:
    """Cut at commas, and at the colon and semicolon of groups, outside of angle brackets."""
    mailbox: list[_Token] = []
    angle = False
    for token in tokens:
        if token.kind in (",", ":", ";") and not angle:
            yield mailbox
            mailbox = []
            continue
        angle = token.kind == "<" or (angle and token.kind != ">")
        mailbox.append(token)
    yield mailbox


def _is_local(tokens: Sequence[_Token]) -> bool:
    """Atoms and quoted strings that touch each other: a display name before a bare address leaves doubt."""
    return (
        bool(tokens)
        and all(token.kind in ("atom", "quoted") for token in tokens)
        and all(one.end == next_.start for one, next_ in pairwise(tokens))
    )


def _local(value: bytes, tokens: Sequence[_Token]) -> str:
    """The local part without quotes and escapes, as it is compared."""
    parts = []
    for token in tokens:
        text = value[token.start : token.end].decode("utf-8", "surrogateescape")
        parts.append(re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL) if token.kind == "quoted" else text)
    return "".join(parts)


def _domain(octets: bytes) -> str | None:
    """The canonical name; None for what is no domain name."""
    if len(octets) > _MAX_DOMAIN_OCTETS:
        return None
    try:
        return canonical_domain(octets.decode("utf-8"))
    except (DomainError, UnicodeDecodeError):
        return None
