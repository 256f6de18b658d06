"""Content transfer encodings undone piece by piece (RFC 2045 6.7, 6.8), as leniently as mail programs do it."""

from __future__ import annotations

import binascii
import re
from typing import Final, Protocol

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_EQUALS: Final = ord("=")
# Octets that are kept from one piece to the next.
MOST_KEPT: Final = 100
_OTHERS: Final = bytes(set(range(256)) - set(_ALPHABET))
_PADDING: Final = re.compile(rb"=+")


class Decoder(Protocol):
    """Undoes one encoding; at most some octets are kept between two pieces."""

    def feed(self, piece: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class Identity:
    """7bit, 8bit, binary, and what nobody knows."""

    def feed(self, piece: bytes) -> bytes:
        return piece

    def finish(self) -> bytes:
        return b""


class Base64:
    """RFC 2045 6.8: what is not of the alphabet is passed over; behind padding a new text may begin."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> bytes:
        data = self._rest + piece.translate(None, _OTHERS)
        *complete, last = _PADDING.split(data) if b"=" in data else (data,)
        whole = len(last) // 4 * 4
        self._rest = last[whole:]
        return b"".join(map(_padded, complete)) + binascii.a2b_base64(last[:whole])

    def finish(self) -> bytes:
        rest, self._rest = self._rest, b""
        return _padded(rest)


def _padded(text: bytes) -> bytes:
    """Octets of a text that may have lost its end; a single character has not even one octet."""
    if len(text) % 4 == 1:
        text = text[:-1]
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4))


class QuotedPrintable:
    """RFC 2045 6.7."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> bytes:
        data = self._rest + piece
        cut = data.rfind(b"=", max(0, len(data) - 2))  # "=XX" and "=" CR LF are whole in one piece
        while cut > 0 and data[cut - 1] == _EQUALS and len(data) - cut < MOST_KEPT:
            cut -= 1  # nobody should write "==", and it must not depend on the pieces what it means
        self._rest = b"" if cut < 0 else data[cut:]
        return binascii.a2b_qp(data if cut < 0 else data[:cut])

    def finish(self) -> bytes:
        rest, self._rest = self._rest, b""
        return binascii.a2b_qp(rest)


def decoder_for(encoding: str) -> Decoder:
    """The decoder of a Content-Transfer-Encoding in lower case."""
    if encoding in ("base64", "b"):
        return Base64()
    return QuotedPrintable() if encoding in ("quoted-printable", "q") else Identity()
