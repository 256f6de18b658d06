"""The SMTP client against a scripted host: what it says, what it does when the host misbehaves."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gatepost.backends.body import MemoryBody
from gatepost.backends.smtp_client import Dialect, SmtpTransport
from gatepost.backends.smtp_client.limits import Limits
from gatepost.backends.smtp_client.transaction import WHOLE_LIMIT
from gatepost.core.envelope import BodyType
from gatepost.core.ports.transport import (
    HostFailure,
    HostPort,
    OutgoingMessage,
    RemoteReply,
    TlsUse,
    TransportRecipient,
)
from testbed.smtpsink import DEFAULT_KEYWORDS, SmtpSink
from testbed.tls import Authority, Certificate

HELO = "mx.gatepost.test"
# Longer than any test takes, except where a test is about a limit.
PATIENT = Limits(
    connect=20,
    command=20,
    data_start=20,
    data_block=20,
    data_end=20,
    idle=20,
    messages_per_connection=100,
    connections_per_host=4,
)
TEXT = b"Subject: probe\r\n\r\n.dot\r\n..\r\nend\r\n"
RECEIVED = b"Received: by mx.gatepost.test\r\n"
WITHOUT_PIPELINING = tuple(word for word in DEFAULT_KEYWORDS if word != "PIPELINING")


def changed(**values: float) -> Limits:
    return Limits(**({name: getattr(PATIENT, name) for name in PATIENT.__struct_fields__} | values))


def a_message(*recipients: str, body: bytes | MemoryBody = TEXT, **more: Any) -> OutgoingMessage:
    addresses = recipients or ("bob@example.org",)
    return OutgoingMessage(
        **{
            "id": "01HF0000000000000000000000",
            "reverse_path": "alice@example.test",
            "recipients": tuple(TransportRecipient(str(n), address) for n, address in enumerate(addresses)),
            "prepend": RECEIVED,
            "body": MemoryBody(body) if isinstance(body, bytes) else body,
            "body_type": BodyType.SEVEN_BIT,
            "smtputf8": False,
        }
        | more
    )


def host(sink: SmtpSink, name: str = "sink.test") -> HostPort:
    return HostPort(name, "127.0.0.1", sink.port)


@asynccontextmanager
async def a_transport(limits: Limits = PATIENT, **more: Any) -> AsyncIterator[SmtpTransport]:
    transport = SmtpTransport(limits=limits, **more)
    try:
        yield transport
    finally:
        await transport.close()


@pytest.fixture
async def transport() -> AsyncIterator[SmtpTransport]:
    async with a_transport() as transport:
        yield transport


@pytest.fixture
def sink() -> Iterator[SmtpSink]:
    with SmtpSink() as sink:
        yield sink


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("smtp-client-ca"))


@pytest.fixture(scope="session")
def certificate(authority: Authority) -> Certificate:
    return authority.issue("sink.test")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens in the sink's own thread."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def codes(replies: Any) -> list[tuple[int, str]]:
    return [(reply.code, reply.enhanced) for reply in replies]


async def send(transport: SmtpTransport, sink: SmtpSink, message: OutgoingMessage | None = None) -> Any:
    return await transport.send(host(sink), message or a_message(), TlsUse.NEVER, HELO)


# --- what is said ---


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


# --- replies by stage ---

BOTH = pytest.mark.parametrize(
    "keywords", [DEFAULT_KEYWORDS, WITHOUT_PIPELINING], ids=["pipelining", "step-by-step"]
)


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


@asynccontextmanager
async def a_server(talk: Any) -> AsyncIterator[int]:
    """A host that does what the coroutine function says; its failure fails the test."""
    tasks: list[asyncio.Task[None]] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(run(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            await asyncio.wait_for(task, 20)


# --- a host that breaks ---


@BOTH
@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "BODY", "END"])
@pytest.mark.parametrize("size", [10, 8 * WHOLE_LIMIT], ids=["small", "large"])
async def test_a_connection_that_breaks(sink: SmtpSink, keywords: tuple[str, ...], stage: str, size: int) -> None:
    sink.keywords = list(keywords)
    sink.script(stage, drop=True, times=1)
    message = a_message("a@example.org", body=b"x" * size + b"\r\n")
    async with a_transport() as transport:
        if stage == "MAIL":
            with pytest.raises(HostFailure) as failure:
                await send(transport, sink, message)
            replies = [failure.value.reply]
        else:
            replies = await send(transport, sink, message)
        assert codes(replies) == [(451, "4.4.2")]
        # A small content is sent whole with its dot before the host is seen to break.
        told_unknown = "unknown" in replies[0].text
        assert told_unknown is (stage == "END" or (stage == "BODY" and size == 10))
        # The next message works, on a fresh connection.
        assert codes(await send(transport, sink)) == [(250, "2.0.0")]
        assert len(sink.sessions) == 2


async def test_what_was_refused_before_the_break_stays_refused(transport: SmtpTransport, sink: SmtpSink) -> None:
    sink.script("RCPT", "550 5.1.1 no", match="bad")
    sink.script("END", drop=True)
    replies = await send(transport, sink, a_message("bad@x.test", "good@x.test"))
    assert codes(replies) == [(550, "5.1.1"), (451, "4.4.2")]
    assert "unknown" in replies[1].text
    assert "unknown" not in replies[0].text


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL"])
async def test_421_at_the_beginning_is_the_hosts_failure(
    transport: SmtpTransport, sink: SmtpSink, stage: str
) -> None:
    sink.script(stage, "421 4.3.2 going down", drop=True)
    with pytest.raises(HostFailure) as failure:
        await send(transport, sink)
    assert failure.value.reply == RemoteReply(421, "4.3.2", "going down", "sink.test", stage)


@BOTH
async def test_421_in_the_middle_closes_the_connection(
    transport: SmtpTransport, sink: SmtpSink, keywords: tuple[str, ...]
) -> None:
    sink.keywords = list(keywords)
    sink.script("RCPT", "421 4.3.2 going down", match="b@", drop=True, times=1)
    replies = await send(transport, sink, a_message("a@x.test", "b@x.test", "c@x.test"))
    assert codes(replies) == [(421, "4.3.2")] * 3
    assert codes(await send(transport, sink)) == [(250, "2.0.0")]
    assert len(sink.sessions) == 2


async def test_a_refusal_within_the_content_is_used(transport: SmtpTransport, sink: SmtpSink) -> None:
    sink.script("BODY", "552 5.3.4 too much", after=WHOLE_LIMIT, times=1)
    replies = await send(transport, sink, a_message(body=(b"x" * 998 + b"\r\n") * 20_000))
    assert replies == [RemoteReply(552, "5.3.4", "too much", "sink.test", "END")]
    assert sink.transactions == []


@pytest.mark.parametrize("reply", ["554 5.7.1 go away", "450 4.7.1 later"])
async def test_a_greeting_that_refuses(transport: SmtpTransport, sink: SmtpSink, reply: str) -> None:
    sink.script("CONNECT", reply)
    with pytest.raises(HostFailure) as failure:
        await send(transport, sink)
    assert failure.value.reply.code == int(reply[:3])
    assert failure.value.reply.command == "CONNECT"


@pytest.mark.parametrize(
    "garbage",
    [
        "HTTP/1.0 400 Bad Request",
        "x" * 5000,
        "250-a\r\n251 b",
        "\r\n".join(["250-more"] * 200),
        "\r\n".join(["250 more"] * 5000),
        "354 go ahead",
        "299",
    ],
    ids=["http", "long-line", "two-codes", "many-lines", "many-replies", "wrong-class", "odd-but-positive"],
)
@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "RCPT", "END"])
async def test_garbage_is_survived(transport: SmtpTransport, sink: SmtpSink, stage: str, garbage: str) -> None:
    sink.script(stage, garbage, times=1)
    try:
        [reply] = await send(transport, sink)
    except HostFailure as failure:
        reply = failure.reply
    positive = garbage == "299" or "250 more" in garbage
    assert reply.code in ((250, 299, 451) if positive else (451,))
    # Nothing of it is left for the next message.
    assert codes(await send(transport, sink)) == [(250, "2.0.0")]


# --- time ---


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL"])
async def test_a_silent_host_is_left_in_time(sink: SmtpSink, stage: str) -> None:
    sink.script(stage, hang=True)
    async with a_transport(changed(command=0.2)) as transport:
        with pytest.raises(HostFailure) as failure:
            await send(transport, sink)
    assert (failure.value.reply.code, failure.value.reply.enhanced) == (451, "4.4.2")


@BOTH
@pytest.mark.parametrize(("stage", "limit"), [("RCPT", "command"), ("DATA", "data_start"), ("END", "data_end")])
async def test_every_stage_has_its_limit(sink: SmtpSink, keywords: tuple[str, ...], stage: str, limit: str) -> None:
    sink.keywords = list(keywords)
    sink.script(stage, hang=True, times=1)
    async with a_transport(changed(**{limit: 1.5})) as transport:
        [reply] = await send(transport, sink)
    assert (reply.code, reply.enhanced) == (451, "4.4.2")
    assert ("unknown" in reply.text) is (stage == "END")


async def test_a_host_that_takes_no_data_is_left_in_time() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        for replies in (b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            await reader.readline()
            writer.write(replies)
        transport: Any = writer.transport
        transport.pause_reading()
        await closed.wait()

    closed = asyncio.Event()
    async with a_server(deaf) as port, a_transport(changed(data_block=0.3)) as transport:
        message = a_message(body=(b"x" * 998 + b"\r\n") * 40_000)
        [reply] = await transport.send(HostPort("x", "127.0.0.1", port), message, TlsUse.NEVER, HELO)
        closed.set()
    assert (reply.code, reply.enhanced) == (451, "4.4.2")
    assert "unknown" not in reply.text


def slowly(*replies: bytes, drip: bytes = b"") -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    """A host whose replies come octet by octet, and behind them `drip` again and again."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(data: bytes) -> None:
            for octet in data:
                writer.write(bytes([octet]))
                await writer.drain()
                await asyncio.sleep(0.001)

        for number, reply in enumerate(replies):
            if number:
                await reader.readline()
            await say(reply)
        while drip:
            try:
                writer.write(drip)
                await writer.drain()
                await asyncio.sleep(0.001)
            except ConnectionError:
                return
        while await reader.readline() not in (b".\r\n", b""):
            pass
        await say(b"250 2.0.0 in parts\r\n")
        await reader.readline()
        await say(b"221 bye\r\n")

    return serve


async def test_a_reply_that_comes_in_parts_is_waited_for() -> None:
    """However TCP cuts it."""
    host_replies = (b"220-hi\r\n220 hi\r\n", b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n")
    async with a_server(slowly(*host_replies)) as port, a_transport(PATIENT) as transport:
        [reply] = await transport.send(HostPort("x", "127.0.0.1", port), a_message(), TlsUse.NEVER, HELO)
    assert (reply.code, reply.text) == (250, "in parts")


@pytest.mark.parametrize("replies", [0, 1, 2])
@pytest.mark.parametrize("drip", [b"2", b"250-more\r\n", b"x"], ids=["one octet", "endless reply", "garbage"])
async def test_a_reply_without_an_end_is_left(replies: int, drip: bytes) -> None:
    """The limit is for a whole reply, not for each octet of it; and its size is bounded before that."""
    host_replies = (b"220 hi\r\n", b"250 hi\r\n", b"250 ok\r\n")[:replies]
    async with a_server(slowly(*host_replies, drip=drip)) as port, a_transport(changed(command=0.5)) as transport:
        where = HostPort("x", "127.0.0.1", port)
        with pytest.raises(HostFailure) as failure:
            await transport.send(where, a_message(), TlsUse.NEVER, HELO)
    assert failure.value.reply.code == 451
    assert failure.value.reply.enhanced in ("4.4.2", "4.5.0")


async def test_a_flood_of_replies_is_bounded() -> None:
    """Also where each of them is honest: nobody reads them while the content is sent."""
    host_replies = (b"220 hi\r\n", b"250 hi\r\n")
    flood = b"".join([b"250-" + b"x" * 1900 + b"\r\n"] * 99 + [b"250 x\r\n"])
    async with a_server(slowly(*host_replies, drip=flood)) as port, a_transport(PATIENT) as transport:
        where = HostPort("x", "127.0.0.1", port)
        async with asyncio.timeout(20):
            replies = await transport.send(where, a_message(), TlsUse.NEVER, HELO)
    assert replies[0].code == 451


async def test_a_host_that_takes_a_little_now_and_then_is_left_in_time() -> None:
    """A minute's octet is no progress: so much of the content must be taken within each limit."""

    async def sipping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        for replies in (b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            await reader.readline()
            writer.write(replies)
        transport: Any = writer.transport
        while not closed.is_set():
            transport.resume_reading()
            await reader.read(1)
            transport.pause_reading()
            await asyncio.sleep(0.01)

    closed = asyncio.Event()
    async with a_server(sipping) as port, a_transport(changed(data_block=0.3)) as transport:
        message = a_message(body=(b"x" * 998 + b"\r\n") * 40_000)
        async with asyncio.timeout(20):
            [reply] = await transport.send(HostPort("x", "127.0.0.1", port), message, TlsUse.NEVER, HELO)
        closed.set()
    assert (reply.code, reply.enhanced) == (451, "4.4.2")


async def test_nobody_listens(transport: SmtpTransport) -> None:
    with SmtpSink() as gone:
        where = host(gone)
    with pytest.raises(HostFailure) as failure:
        await transport.send(where, a_message(), TlsUse.NEVER, HELO)
    assert failure.value.reply == RemoteReply(451, "4.4.1", "Connection refused", "", "CONNECT")


# --- faults of ours ---


@pytest.mark.parametrize(
    "body", [b"a\nb\r\n", b"x" * 2 * WHOLE_LIMIT + b"\r\n.\rMAIL FROM:<>\r\n"], ids=["small", "large"]
)
async def test_bare_newlines_are_not_sent(transport: SmtpTransport, sink: SmtpSink, body: bytes) -> None:
    assert codes(await send(transport, sink, a_message(body=body))) == [(554, "5.6.0")]
    assert codes(await send(transport, sink)) == [(250, "2.0.0")]
    assert len(sink.transactions) == 1


@pytest.mark.parametrize("size", [10, 8 * WHOLE_LIMIT], ids=["small", "large"])
async def test_a_body_that_cannot_be_read_is_not_half_sent(
    transport: SmtpTransport, sink: SmtpSink, size: int
) -> None:
    class Broken(MemoryBody):
        def whole(self) -> bytes:
            raise OSError("secret path")

        async def pieces(self, size: int) -> AsyncIterator[bytes]:
            yield b"x" * size
            raise OSError("secret path")

    [reply] = await send(transport, sink, a_message(body=Broken(b"x" * size)))
    assert (reply.code, reply.enhanced, reply.remote) == (451, "4.3.0", "")
    assert "secret" not in reply.text
    assert codes(await send(transport, sink)) == [(250, "2.0.0")]
    assert len(sink.transactions) == 1


async def test_a_damaged_envelope_reaches_no_host(transport: SmtpTransport, sink: SmtpSink) -> None:
    assert codes(await send(transport, sink, a_message("a@b\r\nRSET"))) == [(451, "4.3.0")]
    assert codes(await send(transport, sink, a_message(prepend=b"X: 1"))) == [(451, "4.3.0")]
    assert await send(transport, sink, a_message(recipients=())) == []
    assert sink.sessions == []


async def test_a_cancelled_message_is_not_ended_by_the_next(sink: SmtpSink) -> None:
    sink.script("RCPT", hang=True, times=1)
    async with a_transport() as transport:
        task = asyncio.create_task(send(transport, sink))
        await until(lambda: any(word.startswith("RCPT") for session in sink.sessions for word in session.commands))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert codes(await send(transport, sink)) == [(250, "2.0.0")]
    assert len(sink.sessions) == 2
    assert len(sink.transactions) == 1


# --- connections ---


async def test_one_connection_carries_many_messages(transport: SmtpTransport, sink: SmtpSink) -> None:
    for _ in range(5):
        assert codes(await send(transport, sink)) == [(250, "2.0.0")]
    await transport.close()
    [session] = sink.sessions
    assert "RSET" not in session.commands
    assert session.commands[-1] == "QUIT"


async def test_a_connection_has_a_last_message(sink: SmtpSink) -> None:
    async with a_transport(changed(messages_per_connection=2)) as transport:
        for _ in range(5):
            assert codes(await send(transport, sink)) == [(250, "2.0.0")]
    assert [sum(c.startswith("MAIL") for c in session.commands) for session in sink.sessions] == [2, 2, 1]
    assert [session.commands[-1] for session in sink.sessions] == ["QUIT"] * 3


async def test_an_idle_connection_is_closed_politely(sink: SmtpSink) -> None:
    async with a_transport(changed(idle=0.1)) as transport:
        await send(transport, sink)
        await until(lambda: sink.sessions[0].commands[-1] == "QUIT")
        await send(transport, sink)
        assert len(sink.sessions) == 2


async def test_connections_to_one_host_are_bounded(sink: SmtpSink) -> None:
    async with a_transport(changed(connections_per_host=3)) as transport:
        results = await asyncio.gather(*(send(transport, sink) for _ in range(20)))
    assert [codes(replies) for replies in results] == [[(250, "2.0.0")]] * 20
    assert 1 <= len(sink.sessions) <= 3


@pytest.mark.parametrize("reply", [None, "421 4.4.2 idle too long"], ids=["closed", "421"])
async def test_a_kept_connection_that_was_closed_is_replaced_once(
    transport: SmtpTransport, sink: SmtpSink, reply: str | None
) -> None:
    await send(transport, sink)
    sink.script("MAIL", reply, drop=True, times=1)
    assert codes(await send(transport, sink)) == [(250, "2.0.0")]
    assert len(sink.sessions) == 2
    sink.script("MAIL", reply, drop=True, times=2)
    with pytest.raises(HostFailure):
        await send(transport, sink)
    assert len(sink.sessions) == 3


async def test_a_host_that_restarted_is_met_again(transport: SmtpTransport, sink: SmtpSink) -> None:
    await send(transport, sink)
    sink.stop()
    with pytest.raises(HostFailure):
        await send(transport, sink)
    sink.start()
    assert codes(await send(transport, sink)) == [(250, "2.0.0")]


async def test_a_connection_is_for_one_host_name_and_helo(transport: SmtpTransport, sink: SmtpSink) -> None:
    await transport.send(host(sink), a_message(), TlsUse.NEVER, HELO)
    await transport.send(host(sink, "other.test"), a_message(), TlsUse.NEVER, HELO)
    await transport.send(host(sink), a_message(), TlsUse.NEVER, "other.gatepost.test")
    assert [session.greeted_as for session in sink.sessions] == [HELO, HELO, "other.gatepost.test"]


# --- TLS ---


async def test_encrypted_where_it_is_offered(transport: SmtpTransport, certificate: Certificate) -> None:
    with SmtpSink(certificate=certificate) as sink:
        for _ in range(2):
            replies = await transport.send(host(sink), a_message(), TlsUse.OPPORTUNISTIC, HELO)
            assert codes(replies) == [(250, "2.0.0")]
        assert len(sink.sessions) == 1
        [first, _] = sink.transactions
        assert re.fullmatch(r"TLSv1\.[23]", first.tls)
        assert first.session.tls_name == "sink.test"
        # Introduced again under TLS (RFC 3207 4.2).
        assert [c for c in sink.sessions[0].commands if c.startswith("EHLO")] == [f"EHLO {HELO}"] * 2


async def test_never_means_never(transport: SmtpTransport, certificate: Certificate) -> None:
    with SmtpSink(certificate=certificate) as sink:
        await transport.send(host(sink), a_message(), TlsUse.NEVER, HELO)
        assert sink.transactions[0].tls == ""


@pytest.mark.parametrize("reply", ["454 4.7.0 not now", "554 5.7.0 no"])
async def test_opportunistic_goes_on_in_clear_when_starttls_is_refused(
    transport: SmtpTransport, certificate: Certificate, reply: str
) -> None:
    with SmtpSink(certificate=certificate) as sink:
        sink.script("STARTTLS", reply)
        await transport.send(host(sink), a_message(), TlsUse.OPPORTUNISTIC, HELO)
        assert sink.transactions[0].tls == ""
        assert len(sink.sessions) == 1


async def test_a_failed_handshake_falls_back_only_when_opportunistic() -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250-hi\r\n250 STARTTLS\r\n")
        line = await reader.readline()
        verbs.append(line[:4])
        if line.startswith(b"STARTTLS"):
            writer.write(b"220 go\r\n")
            await reader.read(100)
            writer.write(b"this is no handshake at all, and long enough to be read as one\r\n")
            await reader.read()
            return
        for answer in (b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            writer.write(answer)
            await reader.readline()
        while await reader.readline() != b".\r\n":
            pass
        writer.write(b"250 stored\r\n")
        await reader.readline()

    verbs: list[bytes] = []
    async with a_server(broken) as port:
        where = HostPort("sink.test", "127.0.0.1", port)
        async with a_transport() as transport:
            with pytest.raises(HostFailure) as failure:
                await transport.send(where, a_message(), TlsUse.REQUIRE, HELO)
            assert (failure.value.reply.code, failure.value.reply.enhanced) == (451, "4.7.5")
            assert verbs == [b"STAR"]
            replies = await transport.send(where, a_message(), TlsUse.OPPORTUNISTIC, HELO)
            assert codes(replies) == [(250, "")]
            assert verbs == [b"STAR", b"STAR", b"MAIL"]


async def test_required_means_checked(certificate: Certificate, authority: Authority) -> None:
    with SmtpSink(certificate=certificate) as sink:
        async with a_transport(ca_file=str(authority.certificate)) as trusting:
            replies = await trusting.send(host(sink), a_message(), TlsUse.REQUIRE, HELO)
            assert codes(replies) == [(250, "2.0.0")]
            with pytest.raises(HostFailure) as other_name:
                await trusting.send(host(sink, "other.test"), a_message(), TlsUse.REQUIRE, HELO)
            assert other_name.value.reply.enhanced == "4.7.5"
        async with a_transport() as stranger:
            with pytest.raises(HostFailure) as unknown_ca:
                await stranger.send(host(sink), a_message(), TlsUse.REQUIRE, HELO)
            assert unknown_ca.value.reply.enhanced == "4.7.5"
            assert "certificate" in unknown_ca.value.reply.text
        assert [transaction.tls != "" for transaction in sink.transactions] == [True]


@pytest.mark.parametrize("offered", [False, True], ids=["not-offered", "refused"])
async def test_required_and_not_to_be_had(
    transport: SmtpTransport, certificate: Certificate, offered: bool
) -> None:
    with SmtpSink(certificate=certificate if offered else None) as sink:
        sink.script("STARTTLS", "454 4.7.0 not now")
        with pytest.raises(HostFailure) as failure:
            await transport.send(host(sink), a_message(), TlsUse.REQUIRE, HELO)
        assert (failure.value.reply.code, failure.value.reply.enhanced) == (451, "4.7.4")
        assert not any(command.startswith("MAIL") for command in sink.sessions[0].commands)


async def test_replies_injected_before_the_handshake_do_not_count(certificate: Certificate) -> None:
    with SmtpSink(certificate=certificate) as sink:
        sink.script("STARTTLS", "220 2.0.0 go ahead\r\n250-injected\r\n250 AUTH PLAIN")
        async with a_transport() as transport:
            with pytest.raises(HostFailure):
                await transport.send(host(sink), a_message(), TlsUse.REQUIRE, HELO)
        assert sink.transactions == []


# --- LMTP ---


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
