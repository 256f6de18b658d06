"""The log, the content topic or the client away at the worst moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import structlog.testing

if TYPE_CHECKING:
    from conftest import Edge, MakeEdge


async def test_log_away_at_the_end_of_data_is_451(edge: Edge) -> None:
    client = await (await edge.client()).begin()
    edge.log.go_away()
    client.send(b"x\r\n.\r\n")
    assert (await client.reply()).startswith("451 4.3.0 ")
    assert edge.events.kinds() == ["refused"]
    edge.log.come_back()
    await client.begin()
    client.send(b"x\r\n.\r\n")
    assert (await client.reply()).startswith("250 ")
    assert len(edge.records()) == 1


async def test_log_away_refuses_new_connections_until_it_is_back(edge: Edge) -> None:
    edge.log.go_away()
    client = await edge.connect()
    reply = (await client.rest()).decode()
    assert reply.startswith("421 4.3.2 ")
    assert "(log)" in reply
    edge.log.come_back()
    await edge.client()


async def test_append_that_does_not_end_is_451_within_its_limit(make_edge: MakeEdge) -> None:
    """The outcome is unknown then: the record appears later, and the client was not told 250."""
    edge = await make_edge(append_timeout="150ms")
    client = await (await edge.client()).begin()
    edge.log.hold()
    client.send(b"x\r\n.\r\n")
    assert (await client.reply()).startswith("451 4.3.0 ")
    edge.log.release()
    assert len(edge.records()) == 1
    assert (await client.ask("NOOP")).startswith("250")


async def test_no_250_before_the_record_is_durable(edge: Edge) -> None:
    client = await (await edge.client()).begin()
    edge.log.hold()
    client.send(b"x\r\n.\r\n")
    client.send(b"NOOP\r\n")
    await edge.until(lambda: any(session.shielded for session in edge.server.sessions))
    assert not edge.records()
    edge.log.release()
    assert (await client.reply()).startswith("250 2.0.0 Ok: queued as ")
    assert (await client.reply()) == "250 2.0.0 Ok"


async def test_client_gone_during_the_append_loses_nothing(edge: Edge) -> None:
    """Fails if a disconnect cancelled the append: the message was complete, and a cancelled append is in doubt."""
    for abort in (False, True):
        client = await (await edge.client()).begin()
        edge.log.hold()
        client.send(b"x\r\n.\r\n")
        await edge.until(lambda: any(session.shielded for session in edge.server.sessions))
        if abort:
            client.reset()
        else:
            await client.close()
        (session,) = edge.server.sessions
        await edge.until(lambda session=session: session.lost or session._at_eof)
        edge.log.release()
        await edge.until(lambda: not edge.server.sessions)
    assert len(edge.records()) == 2
    assert edge.events.kinds() == ["accepted", "accepted"]


async def test_client_gone_before_the_end_of_data_leaves_nothing(edge: Edge) -> None:
    """Neither a message nor memory; half a message is never one."""
    client = await (await edge.client()).begin()
    client.send(b"x\r\n.\r")
    await client.close()
    await edge.until(lambda: not edge.server.sessions)
    assert not edge.records()
    assert edge.server.memory.reserved == 0


async def test_client_gone_during_a_lookup(edge: Edge) -> None:
    edge.directory.gate = asyncio.Event()
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    client.send(b"RCPT TO:<bob@example.test>\r\n")
    await edge.directory.asked.wait()
    client.reset()
    await edge.until(lambda: not edge.server.sessions)


async def test_client_that_ends_its_side_during_a_lookup(edge: Edge) -> None:
    """It may still read: the session ends with the lookup, not before."""
    edge.directory.gate = asyncio.Event()
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    client.send(b"RCPT TO:<bob@example.test>\r\n")
    await edge.directory.asked.wait()
    client.writer.write_eof()
    (session,) = edge.server.sessions
    await edge.until(lambda: session._at_eof)
    edge.directory.gate.set()
    assert await client.rest() == b"250 2.1.5 Ok\r\n"


async def test_half_closed_client_gets_its_replies(edge: Edge) -> None:
    """A script that pipes its whole dialogue and ends its side still learns what became of it."""
    client = await edge.connect()
    await client.hello()
    await client.begin()
    client.send(b"x\r\n.\r\n")
    client.writer.write_eof()
    assert (await client.rest()).startswith(b"250 2.0.0 Ok: queued as ")


async def test_an_internal_error_says_nothing_and_closes(edge: Edge) -> None:
    """451 without any exception's text; the traceback is in the process's log."""

    async def explode(*_: object) -> None:
        raise RuntimeError("secret detail")

    edge.directory.lookup = explode  # type: ignore[method-assign,assignment]
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    with structlog.testing.capture_logs() as lines:
        client.send(b"RCPT TO:<bob@example.test>\r\n")
        reply = (await client.rest()).decode()
    assert reply.startswith("451 4.3.0 internal error, please try again later (internal) ")
    assert "secret" not in reply
    assert any(line.get("exc_info") for line in lines)
    await edge.until(lambda: not edge.server.sessions)


async def test_an_internal_error_while_accepting(edge: Edge) -> None:
    async def explode(*_: object) -> None:
        raise RuntimeError("secret detail")

    edge.log.append = explode  # type: ignore[method-assign,assignment]
    client = await (await edge.client()).begin()
    client.send(b"x\r\n.\r\n")
    reply = (await client.rest()).decode()
    assert reply.startswith("451 4.3.0 internal error")
    await edge.until(lambda: not edge.server.sessions)


@pytest.mark.requirement("S0-22")
async def test_no_configuration_yet(make_edge: MakeEdge) -> None:
    """Fails without the edge being closed to everybody until a policy is loaded."""
    edge = await make_edge(configured=False)
    assert edge.server.not_ready() == "no configuration for mx"
    client = await edge.connect()
    reply = (await client.rest()).decode()
    assert reply.startswith("421 4.3.2 ")
    assert "(configuration)" in reply
    edge.configure()
    assert edge.server.not_ready() is None
    await edge.client()
