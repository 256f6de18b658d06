"""A DKIM-Signature field as values (RFC 6376 3.5, RFC 8616 5), checked for everything that needs no DNS.

The tags that an ARC-Message-Signature shares with it (RFC 8617 4.1.2) are read by the same functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from gatepost.core.authentication.dkim.canonical_header import Canonical
from gatepost.core.authentication.names import dns_name, full_name, is_below
from gatepost.core.authentication.tag_list import (
    TagListError,
    base64_octets,
    colon_list,
    field_text,
    read_tags,
    without_space,
)
from gatepost.core.headers import Field

ALGORITHMS: Final = {
    "rsa-sha256": ("rsa", "sha256"),
    "ed25519-sha256": ("ed25519", "sha256"),  # RFC 8463
    "rsa-sha1": ("rsa", "sha1"),  # known, so that it is refused by name (RFC 8301 3.1)
}

_NUMBER: Final = re.compile(r"[0-9]{1,12}")  # t=, x= (RFC 6376 3.5: at least 12 digits)
_LENGTH: Final = re.compile(r"[0-9]{1,76}")  # l=
_QUOTED_OCTET: Final = re.compile(r"=([0-7][0-9A-F])")
_FIELD_NAME: Final = re.compile(r"[\x21-\x39\x3c-\x7e]+")  # ftext without the semicolon
# No body that we could receive is longer; a larger number is only "longer than the body".
_MOST_OCTETS: Final = 2**62


class SignatureError(ValueError):
    """The field cannot be used; the message is safe to show. `permanent`: RFC 8601 permerror, else neutral."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent


class Signature(msgspec.Struct, frozen=True):
    """The tags that say what was signed, with what, and where the key is."""

    algorithm: str
    key_type: str
    hash_name: str
    signature: bytes
    body_hash: bytes
    header_canonical: Canonical
    body_canonical: Canonical
    domain: str
    selector: str
    names: tuple[str, ...]  # of h=, in lower case
    limit: int | None  # l=
    signed_at: int  # t=, 0 without
    expires_at: int  # x=, 0 without
    identity: str = ""  # i= decoded, "" without
    identity_domain: str = ""
    shown: str = ""  # the start of b=

    @property
    def key_name(self) -> str:
        """Where the key record is (RFC 6376 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"


def read_signature(field: Field) -> Signature:
    """Read a DKIM-Signature. Raises SignatureError for what RFC 6376 6.1.1 tells verifiers to refuse."""
    try:
        tags = read_tags(field_text(field.value))
    except TagListError as error:
        raise SignatureError(f"syntax: {error}") from None
    # "Implementations that support only this version MUST refuse others" (3.5 v=, 6.1.1).
    if tags.get("v") != "1":
        raise SignatureError("incompatible version")
    base = read_common(tags)
    if "from" not in base.names:
        raise SignatureError("From is not signed", permanent=True)
    if "q" in tags and "dns/txt" not in (method.lower() for method in colon_list(tags["q"])):
        raise SignatureError("unknown key query")
    identity = _unquoted(tags.get("i", ""))
    domain = _identity_domain(identity, base.domain)
    return msgspec.structs.replace(base, identity=identity, identity_domain=domain)


def read_common(tags: Mapping[str, str], canonical: str = "simple/simple") -> Signature:
    """Read what DKIM and ARC message signatures have in common; `canonical`: c= of one without it (3.5 c=).

    Raises SignatureError.
    """
    for name in ("a", "b", "bh", "d", "h", "s"):
        if name not in tags:
            raise SignatureError(f"{name}= is missing")
    algorithm, (key_type, hash_name) = read_algorithm(tags)
    domain, selector = read_key_place(tags)
    header_canonical, body_canonical = _canonical(tags.get("c", canonical))
    names = tuple(name.lower() for name in colon_list(tags["h"]))
    if any(name and _FIELD_NAME.fullmatch(name) is None for name in names):
        raise SignatureError("h= is no list of fields")
    signed_at, expires_at = read_number(tags, "t"), read_number(tags, "x")
    if expires_at and expires_at < signed_at:
        raise SignatureError("x= is before t=")
    return Signature(
        algorithm=algorithm,
        key_type=key_type,
        hash_name=hash_name,
        signature=_octets(tags, "b"),
        body_hash=_octets(tags, "bh"),
        header_canonical=header_canonical,
        body_canonical=body_canonical,
        domain=domain,
        selector=selector,
        names=names,
        limit=_limit(tags),
        signed_at=signed_at,
        expires_at=expires_at,
        shown=without_space(tags["b"])[:8],
    )


def read_algorithm(tags: Mapping[str, str]) -> tuple[str, tuple[str, str]]:
    """Return a= with its key type and hash. Raises SignatureError."""
    algorithm = tags.get("a", "")
    known = ALGORITHMS.get(algorithm)
    if known is None:
        raise SignatureError("unknown algorithm")
    return algorithm, known


def read_key_place(tags: Mapping[str, str]) -> tuple[str, str]:
    """Return d= and s= in A-labels (RFC 8616 5). Raises SignatureError."""
    domain = full_name(tags.get("d", ""))
    if domain is None:
        raise SignatureError("d= is no domain name")
    selector = dns_name(tags.get("s", ""))
    if selector is None:
        raise SignatureError("s= is no selector")
    if dns_name(f"{selector}._domainkey.{domain}") is None:
        raise SignatureError("the name of the key is too long")
    return domain, selector


def read_number(tags: Mapping[str, str], name: str) -> int:
    """Return a time tag, 0 when it is not there. Raises SignatureError."""
    if name not in tags:
        return 0
    if _NUMBER.fullmatch(tags[name]) is None:
        raise SignatureError(f"{name}= is no time")
    return int(tags[name])


def _octets(tags: Mapping[str, str], name: str) -> bytes:
    octets = base64_octets(tags[name])
    if octets is None:
        raise SignatureError(f"{name}= is not base64")
    return octets


def _canonical(text: str) -> tuple[Canonical, Canonical]:
    header, slash, body = text.partition("/")
    try:
        # 3.5 c=: without the second one the body's form is simple.
        return Canonical(header), Canonical(body if slash else "simple")
    except ValueError:
        raise SignatureError("unknown canonical form") from None


def _limit(tags: Mapping[str, str]) -> int | None:
    if "l" not in tags:
        return None
    if _LENGTH.fullmatch(tags["l"]) is None:
        raise SignatureError("l= is no number")
    return min(int(tags["l"]), _MOST_OCTETS)


def _unquoted(text: str) -> str:
    """Decode dkim-quoted-printable (2.11), white space left out; octets above ASCII stay as they are."""
    return _QUOTED_OCTET.sub(lambda found: chr(int(found.group(1), 16)), without_space(text))


def _identity_domain(identity: str, domain: str) -> str:
    """Return the domain of i=, d= without one. Raises SignatureError when it is not at or below d= (6.1.1)."""
    if not identity:
        return domain
    _, at, text = identity.rpartition("@")
    name = dns_name(text) if at else None
    if name is None or not is_below(name, domain):
        raise SignatureError("i= is not within d=", permanent=True)
    return name
