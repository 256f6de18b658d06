"""Domain names as signatures and policies write them, and text from strangers that is safe to show.

Sources: RFC 1035 2.3.4 (sizes), RFC 8616 3 (U-labels become A-labels before the DNS is asked), RFC 6376 3.5
(domain-name). Names of the DNS, not of mail hosts: an underscore is allowed.
"""

from __future__ import annotations

import re
from typing import Final

from gatepost.core.domain import DomainError, canonical_domain

MAX_NAME: Final = 253  # RFC 1035 2.3.4, in text without the final dot
MAX_REASON: Final = 200  # one line of a log or of a header field, whatever a stranger wrote

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_LABELS: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_UNSAFE: Final = re.compile(r"[^\x20-\x7e]")


def dns_name(text: str) -> str | None:
    """Return the name in lower-case A-labels, or None when it is none. A final dot is not taken off."""
    if not text.isascii():
        if len(text) > MAX_NAME or text.endswith("."):
            return None
        try:
            text = canonical_domain(text)
        except (DomainError, UnicodeError):
            return None
    text = text.lower()
    return text if len(text) <= MAX_NAME and _LABELS.fullmatch(text) else None


def full_name(text: str) -> str | None:
    """As dns_name, and of two labels at least (RFC 6376 3.5: domain-name = sub-domain 1*("." sub-domain))."""
    name = dns_name(text)
    return name if name is not None and "." in name else None


def is_below(name: str, domain: str) -> bool:
    """Whether a name is the domain or below it, both canonical."""
    return name == domain or name.endswith(f".{domain}")


def plain(text: str, limit: int = MAX_REASON) -> str:
    """Return text that a stranger wrote so that it can be logged or shown: printable ASCII, cut to the limit."""
    return _UNSAFE.sub("?", text[:limit])
