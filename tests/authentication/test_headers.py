"""core.headers: the header cut into fields, octet by octet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.headers import field_of, header_end, read_header, without_fields

MESSAGE = (
    b"Received: from a\r\n\tby b\r\n"
    b"this is no field\r\n  nor its continuation\r\n"
    b"SUBJECT \t:  a\r\n b \r\n"
    b"Empty:\r\n"
    b"\r\n"
    b"Body: not a field\r\n"
)


def test_fields_keep_their_octets() -> None:
    fields = read_header(MESSAGE)
    assert [(field.name, field.value) for field in fields] == [
        (b"received", b" from a\r\n\tby b"),
        (b"subject", b"  a\r\n b "),
        (b"empty", b""),
    ]
    assert fields[1].raw == b"SUBJECT \t:  a\r\n b "


@pytest.mark.parametrize(
    ("message", "names"),
    [
        (b"", []),
        (b"\r\nA: body\r\n", []),
        (b"A: 1", [b"a"]),
        (b" folded: nothing before\r\nA: 1\r\n", [b"a"]),
        (b"A\r\n: 1\r\nB: 2\r\n", [b"b"]),
        (b"A: 1\nB: 2\r\nC: 3\r\n", [b"a", b"c"]),  # a bare LF ends no line
        ("Ä: 1\r\nB: 2\r\n".encode(), [b"b"]),
        (b": 1\r\nB: 2\r\n", [b"b"]),
    ],
)
def test_broken_headers_are_read_as_far_as_they_go(message: bytes, names: list[bytes]) -> None:
    assert [field.name for field in read_header(message)] == names


def test_fields_are_taken_out_and_nothing_else_changes() -> None:
    header = MESSAGE[: header_end(MESSAGE)]
    assert without_fields(header, lambda field: field.name == b"subject") == (
        b"Received: from a\r\n\tby b\r\nthis is no field\r\n  nor its continuation\r\nEmpty:\r\n"
    )
    assert without_fields(header, lambda field: False) == header


def test_one_field_is_one() -> None:
    assert field_of(b"A: 1\r\n 2\r\n").value == b" 1\r\n 2"
    for raw in (b"", b"A: 1\r\nB: 2\r\n", b"none"):
        with pytest.raises(ValueError, match="not one"):
            field_of(raw)


LINES = st.lists(st.sampled_from([b"A: 1", b" x", b"\t", b"B:", b"junk", b"\r", b"\n", b"c \t : ", b": ", b""]))


@given(LINES)
def test_every_octet_of_the_header_is_somewhere(lines: list[bytes]) -> None:
    header = b"\r\n".join(lines)
    assert without_fields(header, lambda field: False) == header
    header = header[: header_end(header)]
    seen = [field.raw for field in read_header(header)]
    for raw in seen:
        assert raw in header
    assert without_fields(header, lambda field: True).count(b"A: 1") <= header.count(b"A: 1")
