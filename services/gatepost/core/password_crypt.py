"""SHA-crypt, the {CRYPT} values of today's Unix systems: $5$ (SHA-256) and $6$ (SHA-512).

After U. Drepper's "Unix crypt using SHA-256 and SHA-512" (version 0.6). Older kinds ($1$, DES) are weak, and newer
ones ($2b$, $y$) need a library; a value of these kinds fits no password.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

DEFAULT_ROUNDS: Final = 5000
MIN_ROUNDS: Final = 1000
# The specification allows a billion: one login would hold a thread for an hour.
MAX_ROUNDS: Final = 1_000_000

_FORM: Final = re.compile(r"\$([56])\$(?:rounds=([1-9][0-9]{0,8})\$)?([^$\0]{0,16})[^$\0]*\$([./0-9A-Za-z]+)")
_DIGITS: Final = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ALGORITHMS: Final = {"5": "sha256", "6": "sha512"}
_LENGTHS: Final = {"5": 43, "6": 86}
# The order in which a digest's bytes are written (steps 22 e and f): where the first triple begins, and by how much
# each place moves on.
_STEPS: Final = {"sha256": (10, 30), "sha512": (21, 63)}


class ShaCrypt(msgspec.Struct, frozen=True):
    """A stored value, read. `encoded` is the digest as it is written."""

    algorithm: str
    rounds: int
    salt: bytes
    encoded: str


def read_crypt(text: str) -> ShaCrypt | None:
    """Read a value without its {CRYPT}; None for another kind, and for rounds beyond MAX_ROUNDS."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    if len(found[4]) != _LENGTHS[found[1]]:
        return None
    rounds = max(MIN_ROUNDS, int(found[2])) if found[2] else DEFAULT_ROUNDS
    if rounds > MAX_ROUNDS:
        return None
    return ShaCrypt(_ALGORITHMS[found[1]], rounds, found[3].encode("utf-8", "surrogateescape"), found[4])


def crypt_digest(password: bytes, salt: bytes, rounds: int, algorithm: str) -> str:
    """The digest as it is written behind the salt. `algorithm` is sha256 or sha512."""
    size = hashlib.new(algorithm).digest_size
    alternate = hashlib.new(algorithm, password + salt + password).digest()  # steps 4 to 8
    start = password + salt + _repeated(alternate, len(password))  # steps 1 to 3, 9 and 10
    length = len(password)
    while length:  # step 11
        start += alternate if length & 1 else password
        length >>= 1
    current = hashlib.new(algorithm, start).digest()
    p = _repeated(hashlib.new(algorithm, password * len(password)).digest(), len(password))  # 13 to 16
    s = _repeated(hashlib.new(algorithm, salt * (16 + current[0])).digest(), len(salt))  # 17 to 20
    for number in range(rounds):  # step 21
        odd = number % 2
        data = (p if odd else current) + (s if number % 3 else b"") + (p if number % 7 else b"")
        current = hashlib.new(algorithm, data + (current if odd else p)).digest()
    return _encoded(current, size, algorithm)


def _repeated(block: bytes, length: int) -> bytes:
    return (block * (length // len(block) + 1))[:length]


def _encoded(digest: bytes, size: int, algorithm: str) -> str:
    step, whole = _STEPS[algorithm]
    text, a, b, c = "", 0, step, 2 * step
    for _ in range(whole // 3):
        text += _four(digest[a], digest[b], digest[c], 4)
        # The three places change their roles in a circle, and all move on by one.
        a, b, c = (
            ((c + 1) % whole, (a + 1) % whole, (b + 1) % whole)
            if size == 32
            else (
                (b + 1) % whole,
                (c + 1) % whole,
                (a + 1) % whole,
            )
        )
    return text + (_four(0, digest[31], digest[30], 3) if size == 32 else _four(0, 0, digest[63], 2))


def _four(high: int, middle: int, low: int, characters: int) -> str:
    value = high << 16 | middle << 8 | low
    return "".join(_DIGITS[value >> 6 * place & 63] for place in range(characters))
