"""Large messages: through a file and the content topic, with bounded memory, without holding up anybody."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from gatepost.backends.content_log import ContentLog
from gatepost.core.envelope import INLINE_LIMIT
from gatepost.core.manifest.settings import LimitSettings

if TYPE_CHECKING:
    from conftest import Edge, MakeEdge

MIB = 2**20
LINE = b"0123456789abcdef" * 4 + b"\r\n"


def body_of(size: int) -> bytes:
    return b"Subject: large\r\n\r\n" + LINE * (size // len(LINE))


async def send_slowly(edge: Edge, message: bytes) -> int:
    """Send a message and return the most that the session held in memory meanwhile."""
    client = await (await edge.client()).begin(parameters=f" SIZE={len(message)}")
    (session,) = edge.server.sessions
    most = 0
    for start in range(0, len(message), 200_000):
        client.send(message[start : start + 200_000])
        async with asyncio.timeout(20):
            await client.writer.drain()
        body = session.body
        most = max(most, len(session._buffer) + (0 if body is None else body._in_pieces))
    client.send(b".\r\n")
    assert (await client.reply()).startswith("250 ")
    return most


async def test_24_mb_with_bounded_memory(make_edge: MakeEdge) -> None:
    """The record carries a reference, the content topic the bytes; the session never held more than a few MB."""
    edge = await make_edge(limits=LimitSettings(memory_for_bodies="4Mi"))
    message = body_of(24 * MIB)
    most = await send_slowly(edge, message)
    assert most < 3 * MIB
    ((envelope, value),) = edge.messages()
    assert value == b""
    assert envelope.content is not None
    assert envelope.size == envelope.content.size == len(message)
    assert envelope.sha256 == hashlib.sha256(message).hexdigest()
    body = await ContentLog(edge.log, "content.transit").read(envelope.content, 20.0)
    assert body.whole() == message
    body.close()
    assert edge.server.memory.reserved == 0


async def test_inline_up_to_the_limit(edge: Edge) -> None:
    for size, inline in ((INLINE_LIMIT, True), (INLINE_LIMIT + 1, False)):
        client = await (await edge.client()).begin()
        message = (b"\r\n" + LINE * 2000)[: size - 2] + b"\r\n"
        client.send(message + b".\r\n")
        assert (await client.reply()).startswith("250 ")
        envelope, value = edge.messages()[-1]
        assert (value == message) is inline
        assert (envelope.content is None) is inline
        assert envelope.size == size


async def test_spooled_and_small_give_the_same(make_edge: MakeEdge) -> None:
    """The same bytes whatever the way: in memory, in a file, early into the file for want of memory."""
    message = body_of(3 * MIB)
    for limits in (
        LimitSettings(spool_above="16Mi"),
        LimitSettings(spool_above="64Ki"),
        LimitSettings(memory_for_bodies="64Ki"),
    ):
        edge = await make_edge(limits=limits)
        client = await (await edge.client()).begin()
        client.send(message + b".\r\n")
        assert (await client.reply()).startswith("250 ")
        ((envelope, _),) = edge.messages()
        assert envelope.content is not None
        body = await ContentLog(edge.log, "content.transit").read(envelope.content, 20.0)
        assert body.whole() == message
        body.close()


async def test_a_disk_that_cannot_be_written(make_edge: MakeEdge, tmp_path: Path) -> None:
    edge = await make_edge()
    edge.server.spool.folder = tmp_path / "not-there"
    client = await (await edge.client()).begin()
    client.send(body_of(3 * MIB) + b".\r\n")
    reply = await client.reply()
    assert reply.startswith("452 4.3.1 ")
    assert "(spool)" in reply
    assert not edge.records()
    assert (await client.ask("NOOP")).startswith("250")


async def test_large_message_with_the_log_away(edge: Edge) -> None:
    client = await (await edge.client()).begin()
    edge.log.go_away()
    client.send(body_of(3 * MIB) + b".\r\n")
    assert (await client.reply()).startswith("451 4.3.0 ")


async def test_client_gone_in_the_middle_of_a_large_message(edge: Edge, tmp_path: Path) -> None:
    client = await (await edge.client()).begin()
    (session,) = edge.server.sessions
    client.send(body_of(3 * MIB))
    await edge.until(lambda: session.content_bytes > 2 * MIB)
    client.reset()
    await edge.until(lambda: not edge.server.sessions)
    assert edge.server.memory.reserved == 0
    assert not os.listdir(tmp_path), "a spool file has a name"


async def test_others_are_served_while_a_large_message_comes(edge: Edge) -> None:
    large, small = await edge.client(), await edge.client()
    await large.begin()
    large.send(body_of(8 * MIB))
    for _ in range(5):
        await small.begin()
        small.send(b"x\r\n.\r\n")
        assert (await small.reply()).startswith("250 ")
    large.send(b".\r\n")
    assert (await large.reply()).startswith("250 ")
    assert len(edge.records()) == 6
