"""The SMTP client when the host breaks, lies, or we do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gatepost.backends.body import MemoryBody
from gatepost.backends.smtp_client import SmtpTransport
from gatepost.backends.smtp_client.transaction import WHOLE_LIMIT
from gatepost.core.ports.transport import (
    HostFailure,
    RemoteReply,
)
from testbed.smtp_client import BOTH, a_message, a_transport, codes, send, until
from testbed.smtpsink import SmtpSink


class EndlessBody(MemoryBody):
    """A body that has another piece whenever it is asked, so that the dot is never on its way."""

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        while True:
            yield b"x" * size


@BOTH
@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "BODY", "END"])
@pytest.mark.parametrize("size", [10, 8 * WHOLE_LIMIT], ids=["small", "large"])
async def test_a_connection_that_breaks(sink: SmtpSink, keywords: tuple[str, ...], stage: str, size: int) -> None:
    sink.keywords = list(keywords)
    sink.script(stage, drop=True, times=1)
    large = size > WHOLE_LIMIT
    body = EndlessBody if large and stage == "BODY" else MemoryBody
    message = a_message("a@example.org", body=body(b"x" * size + b"\r\n"))
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
        assert told_unknown is (stage == "END" or (stage == "BODY" and not large))
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
