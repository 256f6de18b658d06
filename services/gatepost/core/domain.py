"""Domain names: one canonical form (lower-case A-labels) for comparing, and U-labels for showing.

Sources: RFC 1035 2.3.4 (63 octets a label, 253 a name in text), RFC 5321 4.1.2 (Domain), RFC 5890 2.3.2
(A-labels and U-labels), RFC 5891 (IDNA2008; through the `idna` library with UTS 46 mapping).
"""

from __future__ import annotations

import re
from functools import lru_cache

import idna

MAX_DOMAIN = 253  # RFC 1035 2.3.4, in text without the final dot
MAX_LABEL = 63

# RFC 5321 4.1.2: sub-domain = Let-dig [Ldh-str]. An underscore is not allowed in mail domains.
_LDH = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII)


class DomainError(ValueError):
    """The text is no domain name; the message says why, in words for the person who wrote it."""


@lru_cache(maxsize=65536)
def canonical_domain(text: str) -> str:
    """Return the domain as lower-case A-labels, without a final dot.

    Raises DomainError for an empty name, a label or name that is too long, a character outside
    letters, digits and hyphens (ASCII), or a label that IDNA2008 forbids.
    """
    name = text.removesuffix(".")
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise DomainError(f"{text!r} is not a domain name: {error}") from None
    name = name.lower()
    if len(name) > MAX_DOMAIN:
        raise DomainError(f"{text!r} is not a domain name: longer than {MAX_DOMAIN} characters")
    if _LDH.fullmatch(name) is None:
        raise DomainError(
            f"{text!r} is not a domain name: labels of 1 to {MAX_LABEL} letters, digits and inner hyphens, "
            "with dots between them, are needed"
        )
    return name


def display_domain(ascii_domain: str) -> str:
    """Return the U-label form of a canonical domain for people; the A-labels where a label cannot be shown."""
    if "xn--" not in ascii_domain:
        return ascii_domain
    try:
        return idna.decode(ascii_domain)
    except idna.IDNAError:
        return ascii_domain
