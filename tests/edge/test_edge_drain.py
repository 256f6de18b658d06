"""Stopping: nothing that has begun is lost, nobody new is taken, and it ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gatepost.core.manifest.settings import LimitSettings

if TYPE_CHECKING:
    from conftest import Edge, MakeEdge


async def test_drain(edge: Edge) -> None:
    """Idle sessions end at once, a transaction at its next command, DATA after its 250."""
    idle, transaction, data, appending = [await edge.client() for _ in range(4)]
    await transaction.ask("MAIL FROM:<a@example.org>")
    await data.begin()
    await appending.begin()
    edge.log.hold()
    appending.send(b"one\r\n.\r\n")
    await edge.until(lambda: any(session.shielded for session in edge.server.sessions))
    draining = asyncio.create_task(edge.server.drain())
    assert (await idle.rest()).startswith(b"421 4.3.2 ")
    assert edge.server.not_ready() == "shutting down"
    with pytest.raises(OSError):
        await edge.connect()
    assert (await transaction.ask("RCPT TO:<bob@example.test>")).startswith("421 4.3.2 ")
    edge.log.release()
    assert [line[:9] for line in (await appending.rest()).decode().splitlines()] == ["250 2.0.0", "421 4.3.2"]
    assert not draining.done()
    data.send(b"two\r\n.\r\n")
    assert [line[:9] for line in (await data.rest()).decode().splitlines()] == ["250 2.0.0", "421 4.3.2"]
    async with asyncio.timeout(20):
        await draining
    assert [content for _, content in edge.messages()] == [b"one\r\n", b"two\r\n"]


async def test_drain_is_bounded(make_edge: MakeEdge) -> None:
    edge = await make_edge(limits=LimitSettings(drain="100ms"))
    client = await (await edge.client()).begin()
    async with asyncio.timeout(20):
        await edge.server.drain()
    assert edge.server.sessions
    await edge.server.close()
    assert not edge.server.sessions
    assert await client.rest() == b""


async def test_close_waits_for_an_append(edge: Edge) -> None:
    """Fails if closing cancelled what the log may write anyway."""
    client = await (await edge.client()).begin()
    edge.log.hold()
    client.send(b"x\r\n.\r\n")
    await edge.until(lambda: any(session.shielded for session in edge.server.sessions))
    closing = asyncio.create_task(edge.server.close())
    await client.rest()
    assert not closing.done()
    edge.log.release()
    await closing
    assert len(edge.records()) == 1
    assert edge.events.kinds() == ["accepted"]


async def test_close_during_a_handshake(make_edge: MakeEdge) -> None:
    edge = await make_edge(tls=True)
    client = await edge.client()
    assert (await client.ask("STARTTLS")).startswith("220")
    async with asyncio.timeout(20):
        await edge.server.close()
    assert not edge.server.sessions


async def test_close_cancels_what_only_waits(edge: Edge) -> None:
    edge.directory.gate = asyncio.Event()
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    client.send(b"RCPT TO:<bob@example.test>\r\n")
    await edge.directory.asked.wait()
    async with asyncio.timeout(20):
        await edge.server.close()
    assert not edge.server.sessions
    await edge.server.close()
    await edge.server.drain()


async def test_an_address_in_use_is_an_error_and_leaves_nothing_open(make_edge: MakeEdge) -> None:
    edge = await make_edge()
    with pytest.raises(OSError):
        await make_edge(port=edge.port)
    await edge.client()
