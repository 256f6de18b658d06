"""DMARC: whether the author's domain stands behind a message, and what it asks for otherwise (RFC 9989)."""

from __future__ import annotations

from gatepost.core.authentication.dmarc.author import AuthorError, author_domains
from gatepost.core.authentication.dmarc.evaluate import check_dmarc
from gatepost.core.authentication.dmarc.result import Alignment, DmarcPolicy, DmarcResult, DmarcStatus

__all__ = [
    "Alignment",
    "AuthorError",
    "DmarcPolicy",
    "DmarcResult",
    "DmarcStatus",
    "author_domains",
    "check_dmarc",
]
