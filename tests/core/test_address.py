"""Addresses: the grammar of RFC 5321 4.1.2 with RFC 6531, as tables and as properties."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.address import (
    Address,
    AddressError,
    parse_address,
    quote_local,
)
from gatepost.core.domain import DomainError, canonical_domain, display_domain
from gatepost.core.smtp_path import parse_path
from gatepost.core.subaddress import split_subaddress

GOOD = [
    ("<a@b.example>", Address("a", "b.example"), ""),
    ("<A.B@B.EXAMPLE>", Address("A.B", "b.example"), ""),
    ('<"a b"@b.example>', Address("a b", "b.example"), ""),
    (r'<"a\"b"@b.example>', Address('a"b', "b.example"), ""),
    ('<"a@b"@b.example>', Address("a@b", "b.example"), ""),
    ("<a@[127.0.0.1]>", Address("a", "[127.0.0.1]"), ""),
    ("<a@[IPv6:2001:DB8::1]>", Address("a", "[IPv6:2001:db8::1]"), ""),
    ("<@x.example,@y.example:a@b.example>", Address("a", "b.example"), "@x.example,@y.example"),
    ("<山田@例え.jp>", Address("山田", "xn--r8jz45g.jp"), ""),
    ("<POSTMASTER>", Address("postmaster", ""), ""),
    ("<a%c@b.example>", Address("a%c", "b.example"), ""),
    ("<c!a@b.example>", Address("c!a", "b.example"), ""),
]
BAD = [
    "a@b.example",
    "<a@b.example",
    "<a>",
    "<@b.example>",
    "<a@>",
    "<a@b@c.example>",
    "<a..b@c.example>",
    "<.a@c.example>",
    "<a b@c.example>",
    "<a@-b.example>",
    "<a@b_c.example>",
    "<a@[300.0.0.1]>",
    "<a@[tag:foo]>",
    "<a@[127.0.0.1>",
    f"<{'a' * 65}@b.example>",
    f"<a@{'b' * 64}.example>",
    '<"a@b.example>',
    "<a@b.example\r\n>",
    "<\udcff@b.example>",
]


@pytest.mark.parametrize(("text", "address", "route"), GOOD)
def test_good_paths(text: str, address: Address, route: str) -> None:
    path = parse_path(text)
    assert (path.address, path.source_route) == (address, route)


@pytest.mark.parametrize("text", BAD)
def test_bad_paths(text: str) -> None:
    with pytest.raises(AddressError):
        parse_path(text)


def test_null_path() -> None:
    assert parse_path("<>").address is None


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=16),
    st.sampled_from(["b.example", "[127.0.0.1]", "xn--r8jz45g.jp"]),
)
def test_what_is_written_can_be_read(local: str, domain: str) -> None:
    address = Address(local, domain)
    assert parse_address(str(address)) == address


@given(st.text(max_size=300))
def test_parsing_ends_with_an_address_or_an_error(text: str) -> None:
    with suppress(AddressError):
        path = parse_path(text)
        assert path.address is None or parse_address(str(path.address)) == path.address or not path.address.domain


@given(st.binary(max_size=80))
def test_bytes_of_any_kind(data: bytes) -> None:
    with suppress(AddressError):
        path = parse_path(data.decode("utf-8", "surrogateescape"))
        assert path.address is None or path.address.local


@pytest.mark.parametrize(
    ("local", "quoted"), [("a", "a"), ("a b", '"a b"'), ("", '""'), ("a.", '"a."'), ('"', r'"\""')]
)
def test_quoting(local: str, quoted: str) -> None:
    assert quote_local(local) == quoted


@pytest.mark.parametrize(
    ("local", "separators", "parts"),
    [
        ("a+b", ("+",), ("a", "b")),
        ("a+b+c", ("+",), ("a", "b+c")),
        ("+b", ("+",), None),
        ("a-b+c", ("+", "-"), ("a", "b+c")),
        ("ab", ("+",), None),
        ("a+", ("+",), ("a", "")),
    ],
)
def test_subaddresses(local: str, separators: tuple[str, ...], parts: tuple[str, str] | None) -> None:
    assert split_subaddress(local, separators) == parts


@pytest.mark.parametrize(
    ("text", "ascii_form"), [("Example.TEST.", "example.test"), ("例え.jp", "xn--r8jz45g.jp"), ("a", "a")]
)
def test_domains(text: str, ascii_form: str) -> None:
    assert canonical_domain(text) == ascii_form


@pytest.mark.parametrize("text", ["", ".", "a..b", "-a.b", "a" * 64, "a_b.c", "a b", "x." * 127 + "toolong"])
def test_no_domains(text: str) -> None:
    with pytest.raises(DomainError):
        canonical_domain(text)


def test_domains_for_people() -> None:
    assert display_domain("xn--r8jz45g.jp") == "例え.jp"
    assert display_domain("xn--") == "xn--"
