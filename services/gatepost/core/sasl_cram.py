"""CRAM-MD5 (RFC 2195) as a server, without I/O.

Both sides must know the password itself, so the directory has to store it in clear; and who listens on an
unencrypted line can try passwords offline. Compile warns of both: SCRAM-SHA-256 has neither fault.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from gatepost.core.sasl import SaslError, text

_RESPONSE: Final = re.compile(r"(.+) ([0-9a-f]{32})", re.S)


class CramResponse(msgspec.Struct, frozen=True):
    """What a client answered: who it says it is, and the digest in hex."""

    login: str
    digest: str


def cram_challenge(nonce: str, now_s: int, hostname: str) -> bytes:
    """A challenge in the form of a msg-id (RFC 2195 2). `nonce`: fresh and not to be guessed."""
    return f"<{nonce}.{now_s}@{hostname}>".encode("ascii", "replace")


def cram_response(message: bytes) -> CramResponse:
    """user SP digest, 32 hex digits in lower case (RFC 2195 2). Raises SaslError."""
    found = _RESPONSE.fullmatch(text(message))
    if found is None:
        raise SaslError
    return CramResponse(found[1], found[2])


def cram_fits(challenge: bytes, response: CramResponse, passwords: Iterable[str]) -> bool:
    """Whether one of the passwords gives this digest; without any it takes as long as with one."""
    known = [password.encode("utf-8", "surrogateescape") for password in passwords]
    matches = [
        hmac.compare_digest(hmac.new(password, challenge, "md5").hexdigest(), response.digest)
        for password in known or [b"\0"]
    ]
    return bool(known) and any(matches)
