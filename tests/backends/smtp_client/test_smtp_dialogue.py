"""The SMTP and LMTP client against a scripted host: what it says, and what each reply means."""

from __future__ import annotations

import asyncio

import pytest

from gatepost.backends.body import MemoryBody
from gatepost.backends.smtp_client import Dialect, SmtpTransport
from gatepost.backends.smtp_client.transaction import WHOLE_LIMIT
from gatepost.core.envelope import BodyType
from gatepost.core.ports.transport import (
    HostFailure,
    HostPort,
    RemoteReply,
    TlsUse,
    TransportRecipient,
)
from testbed.smtp_client import (
    BOTH,
    HELO,
    RECEIVED,
    TEXT,
    WITHOUT_PIPELINING,
    a_message,
    a_server,
    a_transport,
    codes,
    send,
)
from testbed.smtpsink import DEFAULT_KEYWORDS, SmtpSink


@pytest.mark.parametrize(
    "keywords", [DEFAULT_KEYWORDS, WITHOUT_PIPELINING, ()], ids=["all", "no-pipelining", "none"]
)
async def test_a_message_arrives_byte_for_byte(
    transport: SmtpTransport, sink: SmtpSink, keywords: tuple[str, ...]
) -> None:
    sink.keywords = list(keywords)
    replies = await send(transport, sink, a_message("bob@example.org", '"a b"@example.org'))
    assert replies == [RemoteReply(250, "2.0.0", "stored", "sink.test", "END", "DSN" in keywords)] * 2
    [transaction] = sink.await_transactions(1)
    assert transaction.data == RECEIVED + TEXT
    assert transaction.addresses == ["bob@example.org", '"a b"@example.org']
    assert transaction.helo == HELO
    assert transaction.session.pipelined is ("PIPELINING" in keywords)
    assert transaction.parameters == ((f"SIZE={len(RECEIVED + TEXT)}",) if "SIZE 104857600" in keywords else ())


async def test_helo_where_ehlo_is_not_known(transport: SmtpTransport, sink: SmtpSink) -> None:
    sink.script("EHLO", "500 5.5.1 what?")
    message = a_message(ret="FULL", envid="x")
    assert codes(await send(transport, sink, message)) == [(250, "2.0.0")]
    [transaction] = sink.transactions
    assert not transaction.session.extended
    assert transaction.session.commands[1:3] == [f"HELO {HELO}", "MAIL FROM:<alice@example.test>"]


async def test_the_null_sender_and_dsn_parameters(transport: SmtpTransport, sink: SmtpSink) -> None:
    recipients = (TransportRecipient("1", "bob@example.org", "NEVER", "rfc822;bob+40@example.org"),)
    message = a_message(reverse_path="", recipients=recipients, ret="HDRS", envid="QQ+2B1")
    assert codes(await send(transport, sink, message)) == [(250, "2.0.0")]
    [transaction] = sink.transactions
    assert transaction.sender == ""
    assert transaction.parameters[1:] == ("RET=HDRS", "ENVID=QQ+2B1")
    assert transaction.recipients[0].parameters == ("NOTIFY=NEVER", "ORCPT=rfc822;bob+40@example.org")


async def test_8bit_and_utf8_only_to_hosts_that_take_them(transport: SmtpTransport, sink: SmtpSink) -> None:
    eight = a_message(body="Subject: x\r\n\r\ngrün\r\n".encode(), body_type=BodyType.EIGHT_BIT_MIME)
    mime = a_message(
        body="MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ngrün\r\n".encode(),
        body_type=BodyType.EIGHT_BIT_MIME,
    )
    utf8 = a_message("日@example.jp", body_type=BodyType.EIGHT_BIT_MIME)
    assert codes(await send(transport, sink, utf8)) == [(250, "2.0.0")]
    assert sink.transactions[0].parameters[1:] == ("BODY=8BITMIME", "SMTPUTF8")
    async with a_transport() as other:
        sink.keywords = ["PIPELINING", "8BITMIME"]
        assert codes(await send(other, sink, eight)) == [(250, "2.0.0")]
        [reply] = await send(other, sink, utf8)
        assert (reply.code, reply.enhanced, reply.remote) == (554, "5.6.7", "")
    async with a_transport() as other:
        sink.keywords = ["PIPELINING"]
        assert codes(await send(other, sink, eight)) == [(554, "5.6.3")]
        assert codes(await send(other, sink, mime)) == [(250, "2.0.0")]
        assert b"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\ngr=C3=BCn\r\n" in sink.transactions[-1].data
        assert codes(await send(other, sink)) == [(250, "2.0.0")]
    assert len(sink.sessions) == 3


async def test_a_message_over_the_announced_size_is_not_sent(transport: SmtpTransport, sink: SmtpSink) -> None:
    sink.keywords = ["PIPELINING", "SIZE 40"]
    assert codes(await send(transport, sink)) == [(552, "5.3.4")]
    assert not any(command.startswith("MAIL") for command in sink.sessions[0].commands)


@pytest.mark.parametrize("keywords", [DEFAULT_KEYWORDS, WITHOUT_PIPELINING], ids=["pipelining", "step-by-step"])
async def test_a_large_message_arrives_byte_for_byte(
    transport: SmtpTransport, sink: SmtpSink, keywords: tuple[str, ...]
) -> None:
    class Large(MemoryBody):
        def whole(self) -> bytes:
            raise AssertionError("a large body must not be read at once")

    sink.keywords = list(keywords)
    line = b".line of text\r\n"
    body = line * (4 * WHOLE_LIMIT // len(line)) + b"no end"
    assert codes(await send(transport, sink, a_message(body=Large(body)))) == [(250, "2.0.0")]
    assert sink.transactions[0].data == RECEIVED + body + b"\r\n"


@BOTH
@pytest.mark.parametrize(
    ("stage", "reply", "expected"),
    [
        ("MAIL", "451 4.7.1 later", RemoteReply(451, "4.7.1", "later", "sink.test", "MAIL")),
        ("MAIL", "550 5.7.1 no", RemoteReply(550, "5.7.1", "no", "sink.test", "MAIL")),
        ("RCPT", "452 4.5.3 many", RemoteReply(452, "4.5.3", "many", "sink.test", "RCPT")),
        ("RCPT", "550-5.1.1 no\r\n550 5.1.1 user", RemoteReply(550, "5.1.1", "no user", "sink.test", "RCPT")),
        ("DATA", "451 4.3.0 no", RemoteReply(451, "4.3.0", "no", "sink.test", "DATA")),
        ("DATA", "554 no code", RemoteReply(554, "", "no code", "sink.test", "DATA")),
        ("END", "452 4.3.1 full", RemoteReply(452, "4.3.1", "full", "sink.test", "END")),
        ("END", "554 5.7.1 spam", RemoteReply(554, "5.7.1", "spam", "sink.test", "END")),
    ],
)
async def test_a_refusal_is_told_and_the_connection_goes_on(
    transport: SmtpTransport,
    sink: SmtpSink,
    keywords: tuple[str, ...],
    stage: str,
    reply: str,
    expected: RemoteReply,
) -> None:
    sink.keywords = list(keywords)
    sink.script(stage, reply, times=2 if stage == "RCPT" else 1)
    assert await send(transport, sink, a_message("a@example.org", "b@example.org")) == [expected] * 2
    assert codes(await send(transport, sink)) == [(250, "2.0.0")]
    assert len(sink.sessions) == 1
    commands = sink.sessions[0].commands
    assert ("RSET" in commands) is (stage in ("RCPT", "DATA"))
    assert len(sink.transactions) == (2 if stage == "END" else 1)


@BOTH
async def test_each_recipient_has_its_own_reply(
    transport: SmtpTransport, sink: SmtpSink, keywords: tuple[str, ...]
) -> None:
    sink.keywords = list(keywords)
    sink.script("RCPT", "550 5.1.1 no", match="bad")
    sink.script("RCPT", "450 4.2.1 later", match="busy")
    replies = await send(transport, sink, a_message("bad@x.test", "good@x.test", "busy@x.test", "fine@x.test"))
    assert codes(replies) == [(550, "5.1.1"), (250, "2.0.0"), (450, "4.2.1"), (250, "2.0.0")]
    assert [reply.command for reply in replies] == ["RCPT", "END", "RCPT", "END"]
    assert sink.transactions[0].addresses == ["good@x.test", "fine@x.test"]


async def test_all_recipients_refused_and_354_gets_a_lone_dot(transport: SmtpTransport, sink: SmtpSink) -> None:
    """RFC 2920 3.1: the server may say 354 all the same."""
    seen: list[bytes] = []

    async def lenient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250-hi\r\n250 PIPELINING\r\n")
        for _ in range(2):
            for reply in (b"250 ok\r\n", b"550 no\r\n", b"354 go\r\n"):
                await reader.readline()
                writer.write(reply)
            seen.append(await reader.readline())
            writer.write(b"554 no recipients\r\n")
        seen.append(await reader.readline())
        writer.write(b"221 bye\r\n")
        writer.close()

    async with a_server(lenient) as port:
        for _ in range(2):
            replies = await transport.send(HostPort("x", "127.0.0.1", port), a_message(), TlsUse.NEVER, HELO)
            assert codes(replies) == [(550, "")]
        await transport.close()
    # Nothing of the content, no RSET (the dot has ended the transaction), then QUIT.
    assert seen == [b".\r\n", b".\r\n", b"QUIT\r\n"]


@BOTH
async def test_lmtp_answers_for_each_recipient(keywords: tuple[str, ...]) -> None:
    with SmtpSink(lmtp=True, keywords=keywords) as sink:
        sink.script("RCPT", "550 5.1.1 no", match="bad")
        sink.script("END", "452 4.2.2 full", match="full")
        async with a_transport(dialect=Dialect.LMTP) as transport:
            replies = await send(transport, sink, a_message("a@x.test", "bad@x.test", "full@x.test", "b@x.test"))
            assert codes(replies) == [(250, "2.0.0"), (550, "5.1.1"), (452, "4.2.2"), (250, "2.0.0")]
            assert codes(await send(transport, sink)) == [(250, "2.0.0")]
        assert len(sink.sessions) == 1
        assert sink.sessions[0].commands[0] == f"LHLO {HELO}"


async def test_lmtp_that_breaks_between_replies_leaves_the_rest_unknown() -> None:
    with SmtpSink(lmtp=True) as sink:
        sink.script("END", drop=True, match="b@")
        async with a_transport(dialect=Dialect.LMTP) as transport:
            replies = await send(transport, sink, a_message("a@x.test", "b@x.test", "c@x.test"))
    assert codes(replies) == [(250, "2.0.0"), (451, "4.4.2"), (451, "4.4.2")]
    assert ["unknown" in reply.text for reply in replies] == [False, True, True]


async def test_lmtp_does_not_fall_back_to_helo() -> None:
    with SmtpSink(lmtp=False) as sink:
        sink.script("OTHER", "500 5.5.1 what?")
        async with a_transport(dialect=Dialect.LMTP) as transport:
            with pytest.raises(HostFailure):
                await send(transport, sink)
        assert sink.sessions[0].commands == [f"LHLO {HELO}"]


async def test_a_host_with_limits_gets_several_messages(transport: SmtpTransport, sink: SmtpSink) -> None:
    """RFC 9422: RCPTMAX and MAILMAX on one connection, the rest another time, and nobody twice."""
    sink.keywords = ["PIPELINING", "LIMITS RCPTMAX=2 MAILMAX=2"]
    replies = await send(transport, sink, a_message(*(f"{n}@example.org" for n in range(5))))
    assert [reply.code for reply in replies] == [250, 250, 250, 250, 452]
    first, second = sink.await_transactions(2)
    assert first.addresses == ["0@example.org", "1@example.org"]
    assert second.addresses == ["2@example.org", "3@example.org"]
    assert first.data == second.data == RECEIVED + TEXT
    # The connection has had all that it may have.
    assert [reply.code for reply in await send(transport, sink)] == [250]
    assert len(sink.sessions) == 2
