"""The result of a DMARC check."""

from __future__ import annotations

import enum

import msgspec


class DmarcStatus(enum.StrEnum):
    """RFC 9989 9.3."""

    NONE = "none"
    PASS = "pass"  # noqa: S105 -- a result, no password
    FAIL = "fail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"  # no author domain, or too many: the mechanism cannot be applied (5.3.1)


class DmarcPolicy(enum.StrEnum):
    """A Domain Owner Assessment Policy (RFC 9989 4.7 p=), mildest first."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"


class Alignment(enum.StrEnum):
    """How an authenticated identifier fits the author domain (RFC 9989 3.2.10)."""

    STRICT = "strict"  # the same domain
    RELAXED = "relaxed"  # the same organizational domain


class DmarcResult(msgspec.Struct, frozen=True):
    """`policy`: what the record asks for a message of this author that fails, None without a record.

    `disposition`: the policy less one step with t=y, and none for a message that passes; None where it neither
    passed nor failed. What is done is up to us (5.4). `record_domain`: where the record was found; `spf`, `dkim`:
    how the best identifier aligned, None for not at all; `reporting`: the mail addresses of rua=. `other_authors`:
    more domains of From, whose results were no worse. Every text is safe to log.
    """

    status: DmarcStatus
    author_domain: str = ""
    reason: str = ""
    policy: DmarcPolicy | None = None
    disposition: DmarcPolicy | None = None
    record_domain: str = ""
    organizational_domain: str = ""
    spf: Alignment | None = None
    dkim: Alignment | None = None
    testing: bool = False
    reporting: tuple[str, ...] = ()
    other_authors: tuple[str, ...] = ()
