"""Large messages: into the content topic while they come, with bounded memory, without holding up anybody."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import pytest

from gatepost.backends import content_stream
from gatepost.backends.content_log import ContentLog
from gatepost.core.envelope import INLINE_LIMIT, PIECE_SIZE
from gatepost.core.manifest.settings import LimitSettings
from gatepost.edge.body import MOST_IN_HAND, READ_SIZE
from gatepost.edge.content import Incoming
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

MIB = 2**20
LINE = b"0123456789abcdef" * 4 + b"\r\n"
CONTENT = "content.transit"


def body_of(size: int) -> bytes:
    return b"Subject: large\r\n\r\n" + LINE * (size // len(LINE))


async def stored(edge: Edge, number: int = -1) -> bytes:
    """The body that a record refers to."""
    envelope, value = edge.messages()[number]
    assert value == b""
    assert envelope.content is not None
    body = await ContentLog(edge.log, CONTENT).read(envelope.content, 20.0)
    try:
        return body.whole()
    finally:
        body.close()


async def test_24_mb_with_bounded_memory(make_edge: MakeEdge) -> None:
    """The record carries a reference, the content topic the bytes; the session never held more than a piece."""
    edge = await make_edge(limits=LimitSettings(memory_for_bodies="4Mi"))
    message = body_of(24 * MIB)
    client = await (await edge.client()).begin(parameters=f" SIZE={len(message)}")
    (session,) = edge.server.sessions
    most = 0
    for start in range(0, len(message), 200_000):
        client.send(message[start : start + 200_000])
        async with asyncio.timeout(20):
            await client.writer.drain()
        assert isinstance(session.incoming, Incoming)
        most = max(most, len(session._buffer) + session.incoming.body.in_hand)
        assert edge.server.memory.reserved <= MOST_IN_HAND
    assert most <= MOST_IN_HAND
    assert len(edge.log.records(CONTENT)) >= 20, "little was written before the final dot"
    client.send(b".\r\n")
    assert (await client.reply()).startswith("250 ")
    ((envelope, _),) = edge.messages()
    assert envelope.content is not None
    assert envelope.size == envelope.content.size == len(message)
    assert envelope.sha256 == hashlib.sha256(message).hexdigest()
    assert {record.key for record in edge.log.records(CONTENT)} == {envelope.id.encode()}
    assert all(len(record.value) <= PIECE_SIZE for record in edge.log.records(CONTENT))
    assert await stored(edge) == message
    assert edge.server.memory.reserved == 0


async def test_inline_up_to_the_limit(edge: Edge) -> None:
    """Whatever SIZE says: what counts is what came."""
    for size, inline in ((INLINE_LIMIT, True), (INLINE_LIMIT + 1, False)):
        for parameters in ("", " SIZE=10", " SIZE=10000000"):
            client = await (await edge.client()).begin(parameters=parameters)
            message = (b"\r\n" + LINE * 2000)[: size - 2] + b"\r\n"
            client.send(message + b".\r\n")
            assert (await client.reply()).startswith("250 ")
            envelope, value = edge.messages()[-1]
            assert (value == message) is inline
            assert (envelope.content is None) is inline
            assert envelope.size == size
    assert len(edge.log.records(CONTENT)) == 3


@pytest.mark.parametrize("size", [PIECE_SIZE - 1, PIECE_SIZE, PIECE_SIZE + 1, 2 * PIECE_SIZE])
async def test_bodies_at_the_border_of_a_piece(edge: Edge, size: int) -> None:
    client = await (await edge.client()).begin()
    message = (b"\r\n" + LINE * 30_000)[: size - 2] + b"\r\n"
    client.send(message + b".\r\n")
    assert (await client.reply()).startswith("250 ")
    assert await stored(edge) == message
    assert len(edge.log.records(CONTENT)) == -(-size // PIECE_SIZE)


async def test_pieces_are_smaller_where_memory_is_short(make_edge: MakeEdge) -> None:
    """Nothing waits and nothing fails for want of memory once 354 was said."""
    edge = await make_edge(limits=LimitSettings(memory_for_bodies="300Ki"))
    message = body_of(3 * MIB)
    client = await (await edge.client()).begin()
    client.send(message + b".\r\n")
    assert (await client.reply()).startswith("250 ")
    assert await stored(edge) == message
    assert max(len(record.value) for record in edge.log.records(CONTENT)) <= 2 * READ_SIZE


async def test_memory_is_given_back_to_those_who_wait(make_edge: MakeEdge) -> None:
    """A silent client's body that took memory for a whole piece gives it to a client that waits for 354."""
    edge = await make_edge(limits=LimitSettings(memory_for_bodies="1300Ki"))
    slow = await (await edge.client()).begin()
    slow.send(body_of(600_000))
    await edge.until(lambda: edge.server.memory.reserved == MOST_IN_HAND)
    other = await edge.client()
    await other.ask("MAIL FROM:<a@example.org>")
    await other.ask("RCPT TO:<bob@example.test>")
    other.send("DATA\r\n")
    assert (await other.reply()).startswith("354")
    assert edge.server.memory.reserved == 2 * READ_SIZE
    other.send(b"x\r\n.\r\n")
    assert (await other.reply()).startswith("250 ")
    slow.send(LINE + b".\r\n")
    assert (await slow.reply()).startswith("250 ")
    assert await stored(edge) == body_of(600_000) + LINE


async def test_large_message_with_the_log_away(make_edge: MakeEdge) -> None:
    """451 to the final dot; the rest of the content was read, and the session goes on."""
    edge = await make_edge(append_timeout="300ms")
    client = await (await edge.client()).begin()
    edge.log.go_away()
    client.send(body_of(6 * MIB) + b".\r\n")
    assert (await client.reply()).startswith("451 4.3.0 ")
    edge.log.come_back()
    await client.begin()
    client.send(body_of(3 * MIB) + b".\r\n")
    assert (await client.reply()).startswith("250 ")
    assert len(edge.records()) == 1


async def test_a_moment_without_the_log_in_the_middle_of_a_body(edge: Edge) -> None:
    """Nobody is refused for it: what was not taken is tried again within its limit."""
    client = await (await edge.client()).begin()
    message = body_of(3 * MIB)
    client.send(message[:MIB])
    await edge.until(lambda: len(edge.log.records(CONTENT)) == 1)
    edge.log.go_away()
    client.send(message[MIB:])
    (session,) = edge.server.sessions
    await edge.until(lambda: session.content_bytes > 2 * MIB)
    edge.log.come_back()
    client.send(b".\r\n")
    assert (await client.reply()).startswith("250 ")
    assert await stored(edge) == message


async def paused_clients(edge: Edge, count: int, message: bytes) -> list[Client]:
    """Clients whose bodies wait for their turn at a log that hangs."""
    clients = [await (await edge.client()).begin() for _ in range(count)]
    edge.log.hold()
    for client in clients:
        client.send(message)
    await edge.until(lambda: all(session._reads_paused for session in edge.server.sessions))
    return clients


async def test_bodies_that_wait_for_their_turn_lose_no_time(make_edge: MakeEdge) -> None:
    """Neither the minimum rate nor the idle time runs while we do not read; and all of them come through."""
    edge = await make_edge(limits=LimitSettings(minimum_bytes_per_second=100_000))
    message = body_of(4 * MIB)
    clients = await paused_clients(edge, 10, message)
    assert metrics.CONTENT_UNCONFIRMED.current() == {(): content_stream.PIECES_AT_ONCE}
    assert metrics.BODIES_STREAMING.current() == {(): 10}
    now = asyncio.get_running_loop().time()
    for later in range(0, 10_000, 100):
        edge.server.sweep(now + later)
    edge.log.release()
    for client in clients:
        client.send(b".\r\n")
        assert (await client.reply()).startswith("250 ")
    assert {envelope.sha256 for envelope, _ in edge.messages()} == {hashlib.sha256(message).hexdigest()}
    assert metrics.CONTENT_UNCONFIRMED.current() == {(): 0}
    assert metrics.BODIES_STREAMING.current() == {(): 0}


async def test_an_outage_resumes_the_clients_that_were_made_to_wait(make_edge: MakeEdge) -> None:
    """They would hang for minutes: their content is read to its end, and each gets 451."""
    edge = await make_edge(append_timeout="500ms")
    clients = await paused_clients(edge, 12, body_of(6 * MIB) + b".\r\n")
    for client in clients:
        assert (await client.reply()).startswith("451 4.3.0 ")
    assert not edge.records()
    edge.log.release()
    await clients[0].begin()
    clients[0].send(body_of(3 * MIB) + b".\r\n")
    assert (await clients[0].reply()).startswith("250 ")


async def test_a_turn_that_never_comes_is_refused(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 5321 4.5.3.2.5: a client waits three minutes for a block to be taken; the refusal comes before."""
    assert content_stream.TURN_SECONDS < 180
    monkeypatch.setattr(content_stream, "TURN_SECONDS", 0.2)
    clients = await paused_clients(edge, 12, body_of(6 * MIB) + b".\r\n")
    refused = [asyncio.create_task(client.reply()) for client in clients]
    async with asyncio.timeout(20):
        done, _ = await asyncio.wait(refused, return_when=asyncio.FIRST_COMPLETED)
    assert all(task.result().startswith("451 4.3.0 ") for task in done)
    edge.log.release()
    for reply in await asyncio.gather(*refused):
        assert reply[:3] in ("250", "451")


async def test_client_gone_in_the_middle_of_a_large_message(edge: Edge) -> None:
    """Its pieces are in the content topic, and nothing refers to them."""
    client = await (await edge.client()).begin()
    (session,) = edge.server.sessions
    client.send(body_of(3 * MIB))
    await edge.until(lambda: session.content_bytes > 2 * MIB)
    client.reset()
    await edge.until(lambda: not edge.server.sessions)
    assert edge.server.memory.reserved == 0
    assert not edge.records()


async def test_clients_gone_while_they_wait_for_their_turn(edge: Edge) -> None:
    """Half of them break off: the others still get their turns, and no memory is lost."""
    message = body_of(4 * MIB)
    clients = await paused_clients(edge, 14, message)
    for client in clients[::2]:
        client.reset()
    edge.log.release()
    for client in clients[1::2]:
        client.send(b".\r\n")
        assert (await client.reply()).startswith("250 ")
    await edge.until(lambda: len(edge.server.sessions) == 7)
    assert edge.server.memory.reserved == 0
    assert len(edge.records()) == 7


async def test_a_fault_behind_many_good_pieces(make_edge: MakeEdge) -> None:
    """A message that is refused at its end is never referred to."""
    edge = await make_edge(message_size=4 * MIB)
    client = await edge.client()
    for content, code in (
        (body_of(3 * MIB) + b"bare\nnewline\r\n", "550 5.5.2"),
        (body_of(3 * MIB) + b"nul\0\r\n", "550 5.6.0"),
        (body_of(5 * MIB), "552 5.3.4"),
    ):
        await client.begin()
        client.send(content + b".\r\n")
        assert (await client.reply()).startswith(code)
    assert not edge.records()
    assert edge.server.memory.reserved == 0


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
