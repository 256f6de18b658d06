"""Parsing MAIL, RCPT and HELO lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.address import Address
from gatepost.core.envelope import BodyType
from gatepost.core.parsed_commands import MailCommand, RcptCommand
from gatepost.core.smtp_commands import (
    CommandError,
    parse_helo,
    parse_mail,
    parse_rcpt,
)

ALICE = Address("alice", "example.org")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"FROM:<>", MailCommand(None)),
        (b"FROM: <>", MailCommand(None)),
        (b"from:<alice@example.org>", MailCommand(ALICE)),
        (b"FROM:alice@example.org", MailCommand(ALICE)),
        (b"FROM:<alice@example.org> ", MailCommand(ALICE)),
        (b"FROM:<alice@EXAMPLE.org> SIZE=00012 ", MailCommand(ALICE, size=12)),
        (b"FROM:<@a.example,@b.example:alice@example.org>", MailCommand(ALICE, "@a.example,@b.example")),
        (b'FROM:<"al>ice x"@example.org> BODY=7bit', MailCommand(Address("al>ice x", "example.org"))),
        (rb'FROM:<"\"<a>\\"@example.org>', MailCommand(Address('"<a>\\', "example.org"))),
        (b"FROM:<alice@example.org> BODY=8BITMIME", MailCommand(ALICE, body=BodyType.EIGHT_BIT_MIME)),
        (b"FROM:<alice@example.org> AUTH=e+3Dmc2@example.com SIZE=5", MailCommand(ALICE, size=5)),
        ("FROM:<é@example.org> SMTPUTF8".encode(), MailCommand(Address("é", "example.org"), smtputf8=True)),
    ],
)
def test_mail(argument: bytes, expected: MailCommand) -> None:
    assert parse_mail(argument, extended=True) == expected


@pytest.mark.parametrize(
    ("argument", "code", "enhanced"),
    [
        (b"", 501, "5.5.4"),
        (b"FROM", 501, "5.5.4"),
        (b"TO:<alice@example.org>", 501, "5.5.4"),
        (b"FROM:<alice@example.org>SIZE=1", 501, "5.5.4"),
        (b"FROM:<alice@example.org", 501, "5.5.4"),
        (b"FROM:alice@example.org>", 501, "5.5.4"),
        (b"FROM:<<alice@example.org>>", 501, "5.5.4"),
        (b"FROM:<alice@example.org> SIZE", 501, "5.5.4"),
        (b"FROM:<alice@example.org> SIZE=", 501, "5.5.4"),
        (b"FROM:<alice@example.org> SIZE=-1", 501, "5.5.4"),
        (b"FROM:<alice@example.org> SIZE=" + b"9" * 21, 501, "5.5.4"),
        ("FROM:<alice@example.org> SIZE=٣ SMTPUTF8".encode(), 501, "5.5.4"),
        (b"FROM:<alice@example.org> BODY=", 501, "5.5.4"),
        (b"FROM:<alice@example.org> AUTH", 501, "5.5.4"),
        (b"FROM:<alice@example.org> X-OTHER=1", 555, "5.5.4"),
        (b"FROM:<alice@example.org> NOTIFY=NEVER", 555, "5.5.4"),
        (b"FROM:<alice>", 501, "5.1.7"),
        (b"FROM:<@x:>", 501, "5.1.7"),
        (b"FROM:<alice@exa_mple.org>", 501, "5.1.7"),
        (b"FROM:<\xe9@example.org> SMTPUTF8", 501, "5.1.7"),
        (b"FROM:<\xc3\xa9@example.org>", 553, "5.6.7"),
        ("FROM:<alice@bücher.example>".encode(), 553, "5.6.7"),
        (b"FROM:<" + b"a" * 65 + b"@example.org>", 501, "5.1.7"),
        (b"FROM:<a@" + b"b." * 130 + b"org>", 501, "5.1.7"),
    ],
)
def test_mail_refused(argument: bytes, code: int, enhanced: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_mail(argument, extended=True)
    assert (caught.value.reply.code, caught.value.reply.enhanced) == (code, enhanced)


def test_parameters_need_ehlo() -> None:
    with pytest.raises(CommandError) as caught:
        parse_mail(b"FROM:<alice@example.org> SIZE=1", extended=False)
    assert caught.value.reply.code == 555
    assert parse_mail(b"FROM:<alice@example.org>", extended=False).address == ALICE


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"TO:<alice@example.org>", RcptCommand(ALICE, "alice@example.org")),
        (b"to: <alice@Example.org>", RcptCommand(ALICE, "alice@Example.org")),
        (b"TO:<PostMaster>", RcptCommand(Address("postmaster", ""), "PostMaster")),
        (b"TO:<@a.example:alice@example.org>", RcptCommand(ALICE, "alice@example.org", "@a.example")),
        (b"TO:<a%b!c@[192.0.2.1]>", RcptCommand(Address("a%b!c", "[192.0.2.1]"), "a%b!c@[192.0.2.1]")),
    ],
)
def test_rcpt(argument: bytes, expected: RcptCommand) -> None:
    assert parse_rcpt(argument, utf8=False) == expected


@pytest.mark.parametrize(
    ("argument", "code", "enhanced"),
    [
        (b"TO:<>", 501, "5.1.3"),
        (b"TO:", 501, "5.5.4"),
        (b"TO:<bob>", 501, "5.1.3"),
        (b'TO:<"alice@far.example">', 501, "5.1.3"),
        (b"TO:<alice@far.example@example.org>", 501, "5.1.3"),
        (b"TO:<alice@[300.1.1.1]>", 501, "5.1.3"),
        (b"TO:<alice@example.org> SIZE=1", 555, "5.5.4"),
        (b"TO:<alice@example.org> ==", 501, "5.5.4"),
        (b"TO:@a.example:alice@example.org", 501, "5.5.4"),
    ],
)
def test_rcpt_refused(argument: bytes, code: int, enhanced: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_rcpt(argument, utf8=False)
    assert (caught.value.reply.code, caught.value.reply.enhanced) == (code, enhanced)


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        (b"client.example.org", "client.example.org"),
        (b"[192.0.2.1]", "[192.0.2.1]"),
        (b"[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
        (b"my_pc", "my_pc"),
        (b"", None),
        (b"two words", None),
        (b"b\xc3\xa4r.example", None),
        (b"<script>", None),
        (b"a" * 256, None),
        (b'a"b', None),
        (b"a(comment)", None),
    ],
)
def test_helo(argument: bytes, name: str | None) -> None:
    if name is not None:
        assert parse_helo(argument) == name
        return
    with pytest.raises(CommandError):
        parse_helo(argument)


ARGUMENTS = st.one_of(
    st.binary(max_size=120),
    st.lists(
        st.sampled_from(
            [
                b"FROM:",
                b"TO:",
                b"<",
                b">",
                b"@",
                b'"',
                b"\\",
                b" ",
                b"a",
                b".",
                b"=",
                b"SIZE",
                b"1",
                b":",
                b",",
                b"[",
                b"]",
            ]
        ),
        max_size=40,
    ).map(b"".join),
)


@given(ARGUMENTS, st.booleans())
def test_anything_is_parsed_or_refused_with_a_5xx(argument: bytes, flag: bool) -> None:
    """No input makes the parsers raise anything else, and what they return can be written into a header."""
    for parse in (
        lambda: parse_mail(argument, extended=flag).address,
        lambda: parse_rcpt(argument, utf8=flag).address,
        lambda: parse_helo(argument),
    ):
        refusal = None
        try:
            found = parse()
        except CommandError as error:
            refusal = error.reply
        if refusal is not None:
            assert 500 <= refusal.code < 560
            assert refusal.encode("X" * 26).count(b"\r\n") == 1
        else:
            assert "\r" not in str(found)
            assert "\n" not in str(found)


LOCALS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30)


@given(LOCALS)
def test_an_address_we_write_is_the_one_we_read(local: str) -> None:
    """Quoting goes both ways, whatever is in the local part."""
    address = Address(local, "example.org")
    assert parse_rcpt(f"TO:<{address}>".encode(), utf8=False).address in (
        address,
        Address("postmaster", "") if local == "postmaster" else address,
    )
