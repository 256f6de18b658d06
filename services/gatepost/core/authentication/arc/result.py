"""The result of an ARC chain."""

from __future__ import annotations

import enum

import msgspec


class ArcStatus(enum.StrEnum):
    """The chain validation status (RFC 8617 4.4)."""

    NONE = "none"
    PASS = "pass"  # noqa: S105 -- a result, no password
    FAIL = "fail"


class ArcResult(msgspec.Struct, frozen=True):
    """`instances`: the highest found. `sealers`: d= of the seals of a chain that passes, the newest first.

    `closed`: the newest seal says cv=fail already, so that no set may be added (5.1). `temporary`: the chain
    failed only because a key could not be looked up. `reason` is safe to log.
    """

    status: ArcStatus
    reason: str = ""
    instances: int = 0
    sealers: tuple[str, ...] = ()
    closed: bool = False
    temporary: bool = False
