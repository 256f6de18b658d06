"""The result of one DKIM signature."""

from __future__ import annotations

import enum

import msgspec


class DkimStatus(enum.StrEnum):
    """RFC 8601 2.7.1. There is a result for each signature; a message without any has none."""

    PASS = "pass"  # noqa: S105 -- a result, no password
    FAIL = "fail"  # the body or the signed header is not what was signed
    POLICY = "policy"  # we do not accept it: key too weak, expired, a part of the body left unsigned
    NEUTRAL = "neutral"  # the field cannot be understood, or asks for what nobody knows
    TEMPERROR = "temperror"  # the key could not be looked up; it may be later
    PERMERROR = "permerror"  # no usable key, rsa-sha1 (RFC 8301 3.1), or From is not signed


class DkimSignatureResult(msgspec.Struct, frozen=True):
    """What became of one signature. Texts are safe to log; empty or 0 where the field does not say.

    `domain` (d=, the identity that counts), `selector`, `identity` (i=) have A-labels. `testing`: the key says
    t=y. `unsigned_octets`: of the canonical body behind l=. `signature`: the first characters of b=, which tell
    signatures of one message apart (RFC 6008). Times are seconds since 1970.
    """

    status: DkimStatus
    reason: str = ""
    domain: str = ""
    selector: str = ""
    identity: str = ""
    algorithm: str = ""
    key_bits: int = 0
    weak_key: bool = False
    testing: bool = False
    unsigned_octets: int = 0
    signature: str = ""
    signed_at: int = 0
    expires_at: int = 0
