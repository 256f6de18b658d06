"""Passwords as a directory stores them: checked here when there is no LDAP server that would do it.

A stored value is RFC 2307 5.3's `{scheme}` with base 64 of the digest and the salt behind it, a value without
a scheme is the password itself (RFC 4519 2.41). Schemes: {SHA}, {SSHA}, {SHA256}, {SSHA256}, {SHA512},
{SSHA512}, and {PBKDF2-SHA256} in the form of OpenLDAP's pw-pbkdf2 (`iterations$salt$digest`, base 64 with "."
for "+" and without padding), which is what make_password writes; {CRYPT} with SHA-crypt ($5$, $6$) only, for the
rest of it means whatever the C library of a machine means by it; {SCRAM-SHA-256} (core/sasl_scram.py), which a
password can be checked against as well; {CLEARTEXT} with the password itself behind it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import Final

import msgspec

from gatepost.core.password_crypt import ShaCrypt, crypt_digest, read_crypt
from gatepost.core.sasl_scram import ScramVerifier, fits, parse_verifier

# 600,000 rounds are OWASP's advice of 2023 for PBKDF2 with HMAC-SHA256: 0.1 to 0.3 s for each guess.
ITERATIONS: Final = 600_000
# A stored value with more could hold a thread for minutes.
MAX_ITERATIONS: Final = 10_000_000
SALT_BYTES: Final = 16

_SCHEME: Final = re.compile(r"\{([A-Za-z0-9._/-]{1,32})\}")
_DIGESTS: Final = {"SHA": "sha1", "SHA256": "sha256", "SHA512": "sha512"}
_PBKDF2: Final = re.compile(r"([0-9]{1,8})\$([A-Za-z0-9./]{1,128})\$([A-Za-z0-9./]{43})")


class _Digest(msgspec.Struct, frozen=True):
    algorithm: str
    digest: bytes
    salt: bytes


class _Pbkdf2(msgspec.Struct, frozen=True):
    iterations: int
    digest: bytes
    salt: bytes


class _Clear(msgspec.Struct, frozen=True):
    password: bytes


def check_password(stored: str, password: str) -> bool:
    """Return whether a password fits a stored value; False also for a scheme or a form that is not known.

    The comparison takes the same time wherever the difference is. An empty password never fits: in LDAP it
    would be a bind without authentication (RFC 4513 5.1.2).
    """
    value = _read(stored)
    if value is None or not password:
        return False
    given = password.encode("utf-8", "surrogateescape")
    match value:
        case _Clear(clear):
            return hmac.compare_digest(clear, given)
        case _Digest(algorithm, digest, salt):
            return hmac.compare_digest(digest, hashlib.new(algorithm, given + salt).digest())
        case _Pbkdf2(iterations, digest, salt):
            return hmac.compare_digest(digest, hashlib.pbkdf2_hmac("sha256", given, salt, iterations))
        case ShaCrypt(algorithm, rounds, salt, encoded):
            return hmac.compare_digest(encoded, crypt_digest(given, salt, rounds, algorithm))
        case ScramVerifier():
            return fits(value, password)


def is_costly(stored: str) -> bool:
    """Return whether a check takes long enough (milliseconds) to belong into a thread."""
    return stored[:7].upper() in ("{PBKDF2", "{CRYPT}", "{SCRAM-", "SCRAM-S")


def is_checkable(stored: str) -> bool:
    """Return whether any password could fit; False for a scheme that is not known or a spoilt value."""
    return _read(stored) is not None


def clear_password(stored: str) -> str:
    """Return the password itself where it is stored so, as CRAM-MD5 needs it; else an empty text."""
    value = _read(stored)
    return value.password.decode("utf-8", "surrogateescape") if isinstance(value, _Clear) else ""


def make_password(password: str, salt: bytes, iterations: int = ITERATIONS) -> str:
    """Return the {PBKDF2-SHA256} value for a password. `salt`: SALT_BYTES random bytes.

    Raises ValueError for an empty password, a salt of another size, or iterations out of bounds.
    """
    if not password:
        raise ValueError("an empty password cannot be used")
    if len(salt) != SALT_BYTES or not 1 <= iterations <= MAX_ITERATIONS:
        raise ValueError(f"a salt of {SALT_BYTES} bytes and 1 to {MAX_ITERATIONS} iterations are needed")
    digest = hashlib.pbkdf2_hmac("sha256", password.encode("utf-8", "surrogateescape"), salt, iterations)
    return f"{{PBKDF2-SHA256}}{iterations}${_adapted(salt)}${_adapted(digest)}"


def _read(stored: str) -> _Clear | _Digest | _Pbkdf2 | ShaCrypt | ScramVerifier | None:
    if stored[:14].upper() == "SCRAM-SHA-256$":  # RFC 5803 3 has no braces
        return parse_verifier(stored)
    scheme = _SCHEME.match(stored)
    if scheme is None:
        # An unfinished scheme is a slip of the hand, not somebody's password.
        return None if stored.startswith("{") or not stored else _Clear(stored.encode("utf-8", "surrogateescape"))
    name, value = scheme.group(1).upper(), stored[scheme.end() :]
    if name == "PBKDF2-SHA256":
        return _read_pbkdf2(value)
    if name == "CRYPT":
        return read_crypt(value)
    if name == "SCRAM-SHA-256":
        return parse_verifier(stored)
    if name == "CLEARTEXT":
        return _Clear(value.encode("utf-8", "surrogateescape")) if value else None
    salted = name.startswith("S") and name[1:] in _DIGESTS
    algorithm = _DIGESTS.get(name[1:] if salted else name)
    if algorithm is None:
        return None
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    size = hashlib.new(algorithm).digest_size
    if len(raw) < size or (len(raw) > size) != salted:
        return None
    return _Digest(algorithm, raw[:size], raw[size:])


def _read_pbkdf2(value: str) -> _Pbkdf2 | None:
    found = _PBKDF2.fullmatch(value)
    if found is None or not 1 <= int(found.group(1)) <= MAX_ITERATIONS:
        return None
    try:
        return _Pbkdf2(int(found.group(1)), _unadapted(found.group(3)), _unadapted(found.group(2)))
    except (binascii.Error, ValueError):
        return None


def _adapted(raw: bytes) -> str:
    return base64.b64encode(raw, b"./").decode("ascii").rstrip("=")


def _unadapted(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), b"./", validate=True)
