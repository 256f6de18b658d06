"""The result of an SPF check."""

from __future__ import annotations

import enum

import msgspec


class SpfStatus(enum.StrEnum):
    """RFC 7208 2.6."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"  # noqa: S105 -- a result, no password
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class SpfIdentity(enum.StrEnum):
    """Which name was checked (RFC 7208 2.3, 2.4). Only MAIL FROM counts for DMARC (RFC 9989 4.4.2)."""

    HELO = "helo"
    MAIL_FROM = "mailfrom"


class SpfResult(msgspec.Struct, frozen=True):
    """`domain`: the identity's, in A-labels where it is a name. `mechanism`: the term that decided, "" for none.

    `explanation` is what the domain says to a failed client (6.2): a stranger's text, printable ASCII of limited
    length, "" without. `lookups` counts terms that cost DNS questions, `void_lookups` those without an answer
    (4.6.4). Every text is safe to log.
    """

    status: SpfStatus
    identity: SpfIdentity
    domain: str
    sender: str = ""  # MAIL FROM as it was checked: postmaster@HELO for the null sender
    mechanism: str = ""
    explanation: str = ""
    reason: str = ""
    lookups: int = 0
    void_lookups: int = 0
