"""XCLIENT's attributes and xtext, whatever a host sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.smtp_commands import CommandError
from gatepost.core.xclient import Override, parse_xclient
from gatepost.core.xtext import XtextError, decode_utf8_address, decode_xtext


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"ADDR=192.0.2.1", Override(address="192.0.2.1")),
        (b"addr=IPV6:2001:DB8::1 port=25", Override(address="2001:db8::1", port=25)),
        (b"ADDR=2001:db8::1", Override(address="2001:db8::1")),
        (b"ADDR=IPv6:::ffff:192.0.2.1", Override(address="192.0.2.1")),
        (b"NAME=spike.example.org ADDR=168.100.189.2", Override(name="spike.example.org", address="168.100.189.2")),
        (b"NAME=[UNAVAILABLE] ADDR=[unavailable]", Override(name="", address="")),
        (b"NAME=[TEMPUNAVAIL] PORT=[UNAVAILABLE]", Override(name="", port=0)),
        (b"HELO=bob+2Ex.example PROTO=esmtp", Override(helo="bob.x.example", extended=True)),
        (b"PROTO=SMTP", Override(extended=False)),
        (b"LOGIN=bob+40example.test", Override(login="bob@example.test")),
        (b"LOGIN=[UNAVAILABLE]", Override(login="")),
    ],
)
def test_attributes(argument: bytes, expected: Override) -> None:
    assert parse_xclient(argument) == expected


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b"ADDR",
        b"ADDR=",
        b"ADDR=192.0.2",
        b"ADDR=IPV6:192.0.2.1",
        b"ADDR=IPV6:fe80::1%eth0",
        b"ADDR=192.0.2.1 ADDR=192.0.2.2",
        b"PORT=65536",
        b"PORT=-1",
        b"PROTO=LMTP",
        b"NAME=a+0D+0Ab",
        b"NAME=<b>",
        b"HELO=a+20b",
        b"LOGIN=a+20b",
        b"LOGIN=a+0",
        b"DESTADDR=192.0.2.1",
        b"ADDR=192.0.2.1=",
        b"NAME=\xff",
    ],
)
def test_what_is_not_valid(argument: bytes) -> None:
    with pytest.raises(CommandError) as error:
        parse_xclient(argument)
    assert error.value.reply.code == 501


@given(st.binary(max_size=80))
def test_any_argument(argument: bytes) -> None:
    """An Override or 501; whatever is taken over has no control character and no space."""
    try:
        override = parse_xclient(argument)
    except CommandError:
        return
    for text in (override.name, override.address, override.helo, override.login):
        assert not text or (text.isprintable() and " " not in text)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=50))
def test_xtext_there_and_back(text: str) -> None:
    encoded = "".join(c if c not in "+= " else f"+{ord(c):02X}" for c in text)
    assert decode_xtext(encoded) == text


@pytest.mark.parametrize("text", ["a=b", "a+b", "a+2", "a+2b", "a b", "a+0A", "a+7F", "a+80", "\u00e4"])
def test_no_xtext(text: str) -> None:
    with pytest.raises(XtextError):
        decode_xtext(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("\\x{5C71}\\x{7530}@b.example", "\u5c71\u7530@b.example"), ("\u5c71@b", "\u5c71@b"), ("a@b", "a@b")],
)
def test_utf8_addresses(text: str, meant: str) -> None:
    assert decode_utf8_address(text) == meant


@pytest.mark.parametrize("text", ["\\x{0A}@b", "\\x{D800}@b", "\\x{110000}@b", "a\\x{zz}", "a b", "a+b", "a=b"])
def test_no_utf8_addresses(text: str) -> None:
    with pytest.raises(XtextError):
        decode_utf8_address(text)
