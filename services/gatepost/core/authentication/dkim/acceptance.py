"""What a verifier accepts, and the limits that bound the cost of verifying (RFC 6376 4.2, 8.3, 8.4; RFC 8301)."""

from __future__ import annotations

from typing import Final

import msgspec

# Each costs a DNS question and a public-key operation; more than a few have no honest use (RFC 6376 8.4).
MAX_SIGNATURES: Final = 10
# An RSA key of 8192 bits needs 1,500; more is an attack on the parser.
MAX_KEY_RECORD: Final = 4096
# RFC 8301 3.2 asks for 1024 to 4096; cost grows with the square of the size.
MAX_RSA_BITS: Final = 8192
# 3, 17 and 65537 are in use; cost grows with the exponent's bits.
MAX_RSA_EXPONENT: Final = 2**31 - 1
# RFC 8301 3.2: shorter ones should not be used for signing; reported, not refused.
GOOD_RSA_BITS: Final = 2048
# Clocks of signers run ahead this much (RFC 6376 3.5 t=: "in the future" allows for it).
CLOCK_SKEW: Final = 300


class Acceptance(msgspec.Struct, frozen=True):
    """`partial_body`: whether a signature may leave octets at the end of the body unsigned (RFC 6376 8.2).

    `sha1` and a `min_rsa_bits` below 1024 exist to replay messages from before RFC 8301, which forbids both; no
    setting reaches them.
    """

    min_rsa_bits: int = 1024
    sha1: bool = False
    partial_body: bool = False
    max_signatures: int = MAX_SIGNATURES


DEFAULT_ACCEPTANCE: Final = Acceptance()
