"""The SMTP client's limits on time, and on what a host may send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gatepost.backends.smtp_client import SmtpTransport
from gatepost.core.ports.transport import (
    HostFailure,
    HostPort,
    RemoteReply,
    TlsUse,
)
from testbed.smtp_client import BOTH, HELO, PATIENT, a_message, a_server, a_transport, changed, host, send
from testbed.smtpsink import SmtpSink


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


async def up_to_content(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
    """Take a message up to its content; return the transport, whose reading a host may stop."""
    writer.write(b"220 hi\r\n")
    for reply in (b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
        await reader.readline()
        writer.write(reply)
    return writer.transport


async def test_a_host_that_takes_no_data_is_left_in_time() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transport = await up_to_content(reader, writer)
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
        transport = await up_to_content(reader, writer)
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
