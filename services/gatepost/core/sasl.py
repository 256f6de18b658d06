"""What a client sends in AUTH PLAIN (RFC 4616) and LOGIN, decoded without I/O; no error holds a password."""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec

USERNAME_PROMPT: Final = b"334 VXNlcm5hbWU6\r\n"  # base 64 of "Username:"
PASSWORD_PROMPT: Final = b"334 UGFzc3dvcmQ6\r\n"  # base 64 of "Password:"
EMPTY_PROMPT: Final = b"334 \r\n"

MAX_CREDENTIAL: Final = 1024  # RFC 4616 2 leaves the limit to us; no directory has longer ones


class SaslError(Exception):
    """The response does not decode or has a wrong form. It has no text, so that no secret can be in it."""


class Credentials(msgspec.Struct, frozen=True):
    """`authorization` is the identity to act as; empty: the login's own."""

    login: str
    password: str
    authorization: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.login!r})"


def decode(response: bytes) -> bytes:
    """Decode a response's base 64 (RFC 4954 4; "=" is an empty initial response). Raises SaslError."""
    if response == b"=":
        return b""
    try:
        return base64.b64decode(response, validate=True)
    except (binascii.Error, ValueError):
        raise SaslError from None


def plain(message: bytes) -> Credentials:
    """message = [authzid] NUL authcid NUL passwd (RFC 4616 2). Raises SaslError."""
    parts = message.split(b"\0")
    if len(parts) != 3:
        raise SaslError
    authorization, login, password = (text(part) for part in parts)
    if not login or not password:
        raise SaslError
    return Credentials(login, password, authorization)


def text(value: bytes) -> str:
    """UTF-8 text of a bounded length. Raises SaslError."""
    if len(value) > MAX_CREDENTIAL:
        raise SaslError
    try:
        decoded = value.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslError from None
    if "\0" in decoded:
        raise SaslError
    return decoded
