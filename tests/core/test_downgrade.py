"""8-bit to 7-bit: what is read out of the message is the same, and what cannot be converted is left alone."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.downgrade import NotConvertible, seven_bit

TOP = b"From: a@b.example\r\nSubject: x\r\nMIME-Version: 1.0\r\n"
UMLAUT = "gr\u00fc\u00dfe".encode()


def leaves(message: bytes) -> list[tuple[str, bytes | None]]:
    parsed = email.message_from_bytes(message, policy=email.policy.compat32)
    return [
        (part.get_content_type(), part.get_payload(decode=True))
        for part in parsed.walk()
        if not part.is_multipart()
    ]


lines = st.lists(
    st.binary(max_size=120).map(lambda data: data.replace(b"\r", b"").replace(b"\n", b"").replace(b"-", b"")),
    max_size=8,
)
bodies = st.tuples(lines, st.sampled_from([b"", b"\r\n"])).map(lambda both: b"\r\n".join(both[0]) + both[1])


@given(bodies, st.sampled_from([b"text/plain; charset=utf-8", b"text/html", b"application/x-thing", b"image/png"]))
def test_one_part(body: bytes, kind: bytes) -> None:
    message = TOP + b"Content-Type: " + kind + b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + body
    converted = seven_bit(message)
    assert converted.isascii()
    assert leaves(converted) == leaves(message)
    assert max(map(len, converted.split(b"\r\n"))) <= max(998, *map(len, message.split(b"\r\n"))) or body.isascii()
    assert converted.count(b"\n") == converted.count(b"\r\n")
    assert seven_bit(converted) == converted


@given(
    st.lists(st.tuples(bodies, st.sampled_from([b"text/plain", b"application/pdf", b""])), min_size=1, max_size=4)
)
def test_many_parts(parts: list[tuple[bytes, bytes]]) -> None:
    inner = b"".join(
        b"--in=ner\r\n"
        + (b"Content-Type: " + kind + b"\r\nContent-Transfer-Encoding: 8BIT\r\n" if kind else b"")
        + b"\r\n"
        + body
        + b"\r\n"
        for body, kind in parts
    )
    message = (
        TOP
        + b'Content-Type: multipart/mixed;\r\n\tboundary="out er"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n'
        + b'preamble\r\n--out er\r\nContent-Type: multipart/alternative; boundary="in=ner"\r\n\r\n'
        + inner
        + b"--in=ner--\r\n\r\n--out er\r\n\r\nplain\r\n--out er--\r\nepilogue\r\n"
    )  # fmt: skip
    converted = seven_bit(message)
    assert converted.isascii()
    assert leaves(converted) == leaves(message)
    assert b"preamble\r\n--out er" in converted
    assert converted.endswith(b"--out er--\r\nepilogue\r\n")


def test_what_needs_no_change_keeps_its_bytes() -> None:
    attachment = b"Content-Type: text/x-kept\r\nContent-Transfer-Encoding: base64\r\nX-A:  b\r\n\r\nAAAA\r\n"
    message = (
        TOP + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n" + attachment
        + b"--x\r\n\r\n" + UMLAUT + b"\r\n--x--\r\n"
    )  # fmt: skip
    converted = seven_bit(message)
    assert attachment in converted
    assert b"--x\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\ngr=C3=BC=C3=9Fe\r\n--x--\r\n" in converted


@pytest.mark.parametrize("before", range(70, 80))
def test_a_long_line_that_is_cut_makes_no_delimiter(before: int) -> None:
    """Else whoever writes a long line could add parts that no scanner saw."""
    text = b"a" * before + b"--x--" + UMLAUT + b"\r\n" + b"b" * before + b"--x\r\n-" + UMLAUT
    message = TOP + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\n" + text + b"\r\n--x--\r\n"
    converted = seven_bit(message)
    assert leaves(converted) == leaves(message)
    assert converted.count(b"\r\n--x") == 2


@pytest.mark.parametrize(
    "message",
    [
        b"Subject: x\r\n\r\n" + UMLAUT,
        TOP + b"X: " + UMLAUT + b"\r\n\r\nbody\r\n",
        TOP + b"Content-Transfer-Encoding: binary\r\n\r\n" + UMLAUT,
        TOP + b"Content-Transfer-Encoding: base64\r\n\r\n" + UMLAUT,
        TOP + b"Content-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: 7bit\r\n\r\n" + UMLAUT,
        TOP + b"Content-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\n" + UMLAUT,
        TOP + b"Content-Type: multipart/signed; boundary=x\r\n\r\n--x\r\n\r\n" + UMLAUT + b"\r\n--x--\r\n",
        TOP + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\n" + UMLAUT + b"\r\n",
        TOP + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + UMLAUT + b"\r\n--x\r\n\r\na\r\n--x--\r\n",
        TOP + b"Content-Type: multipart/mixed\r\n\r\n--x\r\n\r\n" + UMLAUT + b"\r\n--x--\r\n",
        TOP + b"Content-Type: multipart/digest; boundary=x\r\n\r\n--x\r\n\r\n" + UMLAUT + b"\r\n--x--\r\n",
        TOP + b"Content-Type: nonsense\r\n\r\n" + UMLAUT,
        TOP + b"no field\r\n\r\n" + UMLAUT,
        TOP + UMLAUT,
    ],
)
def test_what_is_left_alone(message: bytes) -> None:
    with pytest.raises(NotConvertible):
        seven_bit(message)


@given(
    st.lists(
        st.sampled_from(
            [b"--x", b"--x--", b"\r\n", b"Content-Type: multipart/mixed; boundary=x", b"\xe4", b":", b" ", b"a"]
        )
    )
)
def test_any_structure(parts: list[bytes]) -> None:
    """ASCII or NotConvertible, whatever is in it."""
    try:
        converted = seven_bit(TOP + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"".join(parts))
    except NotConvertible:
        return
    assert converted.isascii()
