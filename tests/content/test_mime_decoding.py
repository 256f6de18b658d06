"""Content transfer encodings: what mail programs make of them, in pieces of any size."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.core.mime.decoding import decoder_for
from testbed.messages import crlf, pieces_of


def decode(encoding: str, data: bytes, cuts: Sequence[int] = ()) -> bytes:
    decoder = decoder_for(encoding)
    return b"".join([*(decoder.feed(piece) for piece in pieces_of(data, cuts)), decoder.finish()])


@pytest.mark.parametrize(
    ("encoding", "data", "decoded"),
    [
        ("base64", b"TVqQ\r\nAA==\r\n", b"MZ\x90\0"),
        ("base64", b"T*V q.Q", b"MZ\x90"),
        ("base64", b"TVo=TVo=", b"MZMZ"),
        ("base64", b"TVo", b"MZ"),
        ("base64", b"TVqQT", b"MZ\x90"),
        ("quoted-printable", b"a=3D=\r\nb=4d", b"a=bM"),
        ("quoted-printable", b"a=ZZ=", b"a=ZZ"),
        ("7bit", b"a=3D", b"a=3D"),
        ("x-unknown", b"TVo=", b"TVo="),
    ],
)
def test_decoders(encoding: str, data: bytes, decoded: bytes) -> None:
    assert decode(encoding, data) == decoded


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["base64", "quoted-printable", "8bit"]),
    st.one_of(
        st.binary(max_size=60),
        st.text("ab=\r\n3D ", max_size=60).map(str.encode),
        st.binary(max_size=60).map(base64.encodebytes),
    ),
    st.lists(st.integers(0, 60), max_size=8),
)
def test_pieces_make_no_difference_to_octets(encoding: str, octets: bytes, cuts: list[int]) -> None:
    data = crlf(octets)  # a CR or LF alone does not come through the door
    assert decode(encoding, data, cuts) == decode(encoding, data) == decode(encoding, data, range(len(data)))
