"""Canonical bodies that arrive in pieces (RFC 6376 3.4.3 to 3.4.5)."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.authentication.dkim.body_hash import BodyDigest, BodyHash, BodyHasher, hash_body
from gatepost.core.authentication.dkim.canonical_header import Canonical

SIMPLE, RELAXED = BodyHash(Canonical.SIMPLE), BodyHash(Canonical.RELAXED)


def simple(body: bytes) -> bytes:
    """The rule by the letter, over the whole body."""
    while body.endswith(b"\r\n"):
        body = body[:-2]
    return body + b"\r\n"


def relaxed(body: bytes) -> bytes:
    lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n")]
    text = b"\r\n".join(lines)
    while text.endswith(b"\r\n"):
        text = text[:-2]
    return text + b"\r\n" if text else b""


def expected(canonical: bytes, limit: int | None = None) -> BodyDigest:
    part = canonical if limit is None else canonical[:limit]
    return BodyDigest(hashlib.sha256(part).digest(), len(part), len(canonical))


@pytest.mark.parametrize(
    ("body", "in_simple", "in_relaxed"),
    [
        (b"", b"\r\n", b""),
        (b"\r\n\r\n", b"\r\n", b""),
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C \r\nD \t E\r\n", b" C\r\nD E\r\n"),  # RFC 6376 3.4.6
        (b"no end", b"no end\r\n", b"no end\r\n"),
        (b"a\r\n \t\r\n\r\n", b"a\r\n \t\r\n", b"a\r\n"),
        (b"a\r\n\r\n\r\nb", b"a\r\n\r\n\r\nb\r\n", b"a\r\n\r\n\r\nb\r\n"),
        (b"a\r\r\n\n\r\n", b"a\r\r\n\n\r\n", b"a\r\r\n\n\r\n"),  # bare CR and LF end no line
        (b"a \r", b"a \r\r\n", b"a \r\r\n"),
    ],
)
def test_examples(body: bytes, in_simple: bytes, in_relaxed: bytes) -> None:
    hashes = hash_body(body, {SIMPLE, RELAXED})
    assert hashes.get(SIMPLE) == expected(in_simple)
    assert hashes.get(RELAXED) == expected(in_relaxed)


BODY = st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n", b"\r", b"\n", b"\r\n\r\n", b"  "]), max_size=40).map(
    b"".join
)


@given(BODY, st.lists(st.integers(1, 5), min_size=1), st.lists(st.integers(0, 40), max_size=4))
def test_pieces_and_lengths_make_no_difference(body: bytes, sizes: list[int], limits: list[int]) -> None:
    wanted = {BodyHash(how, limit) for how in Canonical for limit in (None, *limits)}
    hasher = BodyHasher(wanted)
    at = number = 0
    while at < len(body):
        size = sizes[number % len(sizes)]
        hasher.update(body[at : at + size])
        at, number = at + size, number + 1
    hashes = hasher.finish()
    for one in wanted:
        canonical = simple(body) if one.canonical is Canonical.SIMPLE else relaxed(body)
        assert hashes.get(one) == expected(canonical, one.limit)


def test_nothing_is_hashed_that_nobody_wants() -> None:
    hashes = hash_body(b"a\r\n", {SIMPLE})
    with pytest.raises(KeyError):
        hashes.get(RELAXED)
