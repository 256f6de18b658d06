"""Message ids: ordered by time, and derived ones that a repeated step computes again.

An id is 26 characters of Crockford's base 32: 10 for the milliseconds since 1970 (48 bits), 16 for 80 bits
that are random for an accepted message and a hash for a derived one. The first 10 characters of a derived
id are its parent's, so that all that came out of one message lies close together in time.
"""

from __future__ import annotations

import hashlib
import os
import re

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUE = {character: number for number, character in enumerate(_ALPHABET)}
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]  # two characters hold 10 bits
_LOW40 = (1 << 40) - 1
_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.ASCII)


def _encode40(n: int) -> str:
    """8 characters of 40 bits. Written out: an id is made several times for each message."""
    return _PAIRS[n >> 30] + _PAIRS[n >> 20 & 1023] + _PAIRS[n >> 10 & 1023] + _PAIRS[n & 1023]


def _encode80(data: bytes) -> str:
    return _encode40(int.from_bytes(data[:5], "big")) + _encode40(int.from_bytes(data[5:10], "big"))


_IDS_AT_ONCE = 400
_entropies: list[bytes] = []
os.register_at_fork(after_in_child=_entropies.clear)  # or parent and child would make the same ids


def _entropy() -> bytes:
    """10 random bytes of the system, never the same ones again, in any thread.

    Fetched for many ids at once: a call of the system also lets go of the interpreter's lock, which costs more than
    the id where other threads wait for it.
    """
    try:
        return _entropies.pop()
    except IndexError:
        fetched = os.urandom(10 * _IDS_AT_ONCE)
        _entropies.extend(fetched[place : place + 10] for place in range(10, len(fetched), 10))
        return fetched[:10]


def new_id(now_ms: int, entropy: bytes | None = None) -> str:
    """Return a new id for the moment `now_ms` (ms since 1970). `entropy`: 10 bytes, else from the system."""
    return _PAIRS[now_ms >> 40 & 1023] + _encode40(now_ms & _LOW40) + _encode80(entropy or _entropy())


def derive_id(parent: str, recipient: str, action: str) -> str:
    """Return the id of what `action` makes of `parent` for the final `recipient` (an Address key or a name).

    A hash of these three alone, never of an order or a grouping: a step that is repeated after a crash
    writes the same ids even if the directory answered differently in between.
    """
    digest = hashlib.sha256(f"{parent}\0{recipient}\0{action}".encode("utf-8", "surrogateescape")).digest()
    return parent[:10] + _encode80(digest)


def is_id(text: str) -> bool:
    """Whether the text has the form of an id."""
    return _ID.fullmatch(text) is not None


def time_of(message_id: str) -> int:
    """Return the milliseconds since 1970 in an id. Raises ValueError when it is none."""
    if not is_id(message_id):
        raise ValueError(f"{message_id!r} is not a message id: 26 characters of 0-9 and A-Z without I, L, O, U")
    number = 0
    for character in message_id[:10]:
        number = number * 32 + _VALUE[character]
    return number
