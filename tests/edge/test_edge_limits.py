"""Every limit of a policy and of the process, and what changes when the configuration does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gatepost.core.configuration import ClientRule
from gatepost.core.manifest.settings import LimitSettings, Role
from gatepost.edge.body import READ_SIZE
from gatepost.edge.command_table import COMMANDS

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

    from gatepost.edge.session import Session


async def refusal(edge: Edge) -> str:
    client = await edge.connect()
    return (await client.rest()).decode()


@pytest.mark.parametrize(
    ("arguments", "code", "check"),
    [
        ({"per_host_concurrent": 2}, "421 4.7.0", "per-host-concurrent"),
        ({"total_concurrent": 2}, "421 4.7.0", "total-concurrent"),
        ({"limits": LimitSettings(sessions=2)}, "421 4.3.2", "sessions"),
    ],
)
async def test_connections(make_edge: MakeEdge, arguments: dict[str, Any], code: str, check: str) -> None:
    """The limit counts open sessions: one that ends makes room, one that was refused takes none."""
    edge = await make_edge(**arguments)
    first, _ = await edge.client(), await edge.client()
    for _ in range(2):
        reply = await refusal(edge)
        assert reply.startswith(code)
        assert f"({check})" in reply
    await first.ask("QUIT")
    await first.rest()
    await edge.until(lambda: len(edge.server.sessions) == 1)
    await edge.client()
    assert (await refusal(edge)).startswith(code)


@pytest.mark.requirement("S0-24")
async def test_a_listener_without_any_connection_is_closed(make_edge: MakeEdge) -> None:
    """Fails without a limit that closes one service and gives another more."""
    edge = await make_edge(total_concurrent=0)
    assert (await refusal(edge)).startswith("421 4.7.0")
    edge.configure(total_concurrent=3)
    clients = [await edge.client() for _ in range(3)]
    assert len(clients) == 3
    assert (await refusal(edge)).startswith("421 4.7.0")


@pytest.mark.requirement("S4-31")
async def test_message_size_while_it_comes(make_edge: MakeEdge) -> None:
    """Without SIZE the message is read to its end, not kept, and refused there; the session goes on.

    Fails without a maximum size that a policy sets in octets.
    """
    edge = await make_edge(message_size=65536)
    client = await (await edge.client()).begin()
    line = b"x" * 998 + b"\r\n"
    client.send(line * 65 + b"x" * 534 + b"\r\n.\r\n")  # 65536 octets exactly
    assert (await client.reply()).startswith("250")
    await client.begin()
    client.send(line * 65 + b"x" * 535 + b"\r\n.\r\n")
    reply = await client.reply()
    assert reply.startswith("552 5.3.4")
    assert "(size)" in reply
    await client.begin()
    client.send(line * 2000 + b".\r\nNOOP\r\n")
    assert (await client.reply()).startswith("552 5.3.4")
    assert (await client.reply()).startswith("250")
    assert len(edge.records()) == 1


async def test_dot_stuffing_does_not_count(make_edge: MakeEdge) -> None:
    """RFC 1870 4: the doubled dots are no part of the size."""
    edge = await make_edge(message_size=65536)
    client = await (await edge.client()).begin()
    client.send(b"..\r\n" * (65536 // 3) + b".\r\n")
    assert (await client.reply()).startswith("250")
    assert edge.messages()[0][1] == b".\r\n" * (65536 // 3)


@pytest.mark.requirement("S0-54")
async def test_size_of_a_domain(make_edge: MakeEdge) -> None:
    """Declared, the recipient is refused; undeclared, the message for all, since one copy is kept.

    Fails without a size that each domain agrees on with its users; unset, only the listener's counts.
    """
    edge = await make_edge(
        domains=(make_edge.domain(), make_edge.domain("small.example", max_message_size=1000, directory="people"))
    )
    edge.directory.add("bob@small.example")
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org> SIZE=1001")
    assert (await client.ask("RCPT TO:<bob@small.example>")).startswith("552 5.3.4")
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")
    await client.ask("RSET")
    await client.begin("bob@example.test", "bob@small.example")
    client.send(b"x" * 999 + b"\r\n.\r\n")
    assert (await client.reply()).startswith("552 5.3.4")
    await client.begin("bob@example.test", "bob@small.example")
    client.send(b"x" * 998 + b"\r\n.\r\n")
    assert (await client.reply()).startswith("250")


async def test_header_size(make_edge: MakeEdge) -> None:
    edge = await make_edge(header_bytes=1000)
    for header, code in ((b"x" * 998, "250"), (b"x" * 999, "552 5.3.4")):
        for body in (b"\r\nbody" + b"\r\nmore" * 1000, b""):
            client = await (await edge.client()).begin()
            client.send(header + b"\r\n" + body + b"\r\n.\r\n" if body else header + b"\r\n.\r\n")
            assert (await client.reply()).startswith(code)


@pytest.mark.requirement("S4-32")
@pytest.mark.parametrize(("count", "code"), [(5, "250"), (6, "554 5.4.6")])
async def test_loops(make_edge: MakeEdge, count: int, code: str) -> None:
    """Received fields of the header count, whatever their case; those in the body do not.

    Fails without a limit on hops, which tells a loop from a bombing.
    """
    edge = await make_edge(max_received=5)
    client = await (await edge.client()).begin()
    client.send(b"RECEIVED: x\r\n\tReceived: folded\r\nReceived: y\r\n" + b"received: z\r\n" * (count - 2))
    client.send(b"\r\n" + b"Received: body\r\n" * 10 + b".\r\n")
    assert (await client.reply()).startswith(code)


async def test_command_line_length(edge: Edge) -> None:
    """512 octets with CR LF (RFC 5321 4.5.3.1.4), more for MAIL's parameters; then the line is passed over."""
    client = await edge.client()
    assert (await client.ask("NOOP " + "x" * 505)).startswith("250")
    reply = await client.ask("NOOP " + "x" * 506)
    assert reply.startswith("500 5.5.2")
    assert "(line-length)" in reply
    assert (await client.ask("MAIL FROM:<a@example.org> AUTH=" + "x" * 490)).startswith("250")
    orcpt = "ORCPT=rfc822;" + "x" * 490  # RFC 3461 4.2: up to 500 characters
    assert (await client.ask(f"RCPT TO:<bob@example.test> NOTIFY=SUCCESS,FAILURE,DELAY {orcpt}")).startswith("250")
    assert (await client.ask("RSET")).startswith("250")
    assert (await client.ask("MAIL FROM:<a@example.org> AUTH=" + "x" * 1200)).startswith("500 5.5.2")


async def test_an_endless_line_takes_no_memory(edge: Edge) -> None:
    client = await edge.client()
    (session,) = edge.server.sessions
    for _ in range(100):
        client.send(b"x" * 100_000)
        async with asyncio.timeout(20):
            await client.writer.drain()
        assert len(session._buffer) < 400_000
    client.send(b"\r")
    await edge.until(lambda: session._buffer == b"\r")
    client.send(b"\nNOOP\r\n")
    assert (await client.reply()).startswith("500 5.5.2")
    assert (await client.reply()).startswith("250")


async def test_idle_sessions_end(make_edge: MakeEdge) -> None:
    """A line shows that somebody is there, a byte does not."""
    edge = await make_edge(idle_timeout=100.0)
    client = await edge.client()
    (session,) = edge.server.sessions
    now = asyncio.get_running_loop().time()
    edge.server.sweep(now + 50)
    assert not session.closing
    session.deadline = before = session.deadline - 10
    client.send(b"N")
    await edge.until(lambda: session._buffer == b"N")
    assert session.deadline == before
    client.send(b"OOP\r\nN")
    assert (await client.reply()).startswith("250")
    assert session.deadline > before
    edge.server.sweep(session.deadline + 1)
    reply = (await client.rest()).decode()
    assert reply.startswith("421 4.4.2 ")
    assert "(idle-timeout)" in reply


async def test_idle_after_a_command_that_had_to_wait(edge: Edge) -> None:
    """Time runs again once a lookup or an append is done."""
    for steps in (
        (),
        (b"RCPT TO:<bob@example.test>\r\n",),
        (b"RCPT TO:<bob@example.test>\r\n", b"DATA\r\n", b".\r\n"),
    ):
        client = await edge.client()
        await client.ask("MAIL FROM:<a@example.org>")
        for step in steps:
            client.send(step)
            assert (await client.reply())[0] in "23"
        edge.server.sweep(asyncio.get_running_loop().time() + 301)
        assert (await client.rest()).startswith(b"421 4.4.2 ")
        await edge.until(lambda: not edge.server.sessions)


async def test_idle_in_the_middle_of_a_large_message(edge: Edge) -> None:
    """Also where the disk was waited for in between."""
    client = await (await edge.client()).begin()
    (session,) = edge.server.sessions
    client.send(b"\r\n" + b"x" * 4_000_000)
    await edge.until(
        lambda: session.content_bytes == 4_000_002 and session.incoming is not None and not session.incoming.behind
    )
    edge.server.sweep(asyncio.get_running_loop().time() + 301)
    assert (await client.rest()).startswith(b"421 4.4.2 ")


async def test_idle_with_a_client_that_never_reads(make_edge: MakeEdge) -> None:
    """Neither the idle time nor the last reply waits for a client that takes nothing: it is cut off."""
    edge = await make_edge(junk_commands=1_000_000)
    client = await edge.client()
    (session,) = edge.server.sessions
    client.writer.transport.pause_reading()
    for _ in range(100):
        client.send(b"HELP\r\n" * 10_000)
        await asyncio.sleep(0)
    await edge.until(lambda: session._writes_paused)
    now = asyncio.get_running_loop().time()
    edge.server.sweep(now + 301)
    assert session.closing
    assert edge.server.sessions
    edge.server.sweep(now + 301)
    await edge.until(lambda: not edge.server.sessions)


async def test_no_time_passes_while_the_server_works(edge: Edge) -> None:
    """A slow directory or log is not the client's fault."""
    client = await edge.client()
    edge.directory.gate = asyncio.Event()
    await client.ask("MAIL FROM:<a@example.org>")
    client.send(b"RCPT TO:<bob@example.test>\r\n")
    await edge.directory.asked.wait()
    edge.server.sweep(asyncio.get_running_loop().time() + 100_000)
    edge.directory.gate.set()
    assert (await client.reply()).startswith("250")
    edge.log.hold()
    assert (await client.ask("DATA")).startswith("354")
    client.send(b".\r\n")
    await edge.until(lambda: any(session.shielded for session in edge.server.sessions))
    edge.server.sweep(asyncio.get_running_loop().time() + 100_000)
    edge.log.release()
    assert (await client.reply()).startswith("250")


async def feed(edge: Edge, client: Client, data: bytes) -> None:
    (session,) = edge.server.sessions
    wanted = session.content_bytes + len(data)
    client.send(data)
    await edge.until(lambda: session.content_bytes == wanted)


async def test_minimum_rate(make_edge: MakeEdge) -> None:
    """Judged over a minute: a burst does not excuse the minute after it, a pause of some seconds is nothing."""
    edge = await make_edge(limits=LimitSettings(minimum_bytes_per_second=100))
    client = await (await edge.client()).begin()
    start = asyncio.get_running_loop().time()
    edge.server.sweep(start + 59)
    await feed(edge, client, b"x" * 8000)
    edge.server.sweep(start + 61)
    (session,) = edge.server.sessions
    assert not session.closing
    edge.server.sweep(start + 120)
    assert not session.closing
    edge.server.sweep(start + 122)
    reply = (await client.rest()).decode()
    assert reply.startswith("421 4.4.2 ")
    assert "(minimum-rate)" in reply
    assert not edge.records()


async def test_data_waits_for_memory(make_edge: MakeEdge) -> None:
    """Above the cap nobody is refused and nothing half-read is dropped: DATA is answered when there is room."""
    edge = await make_edge(limits=LimitSettings(memory_for_bodies="600Ki"))
    clients = [await edge.client() for _ in range(4)]
    for client in clients:
        await client.ask("MAIL FROM:<a@example.org> SIZE=400000")
        await client.ask("RCPT TO:<bob@example.test>")
        client.send(b"DATA\r\n")
    assert (await clients[0].reply()).startswith("354")
    assert (await clients[1].reply()).startswith("354")
    assert edge.server.memory.reserved == 2 * READ_SIZE
    clients[2].reset()  # one that waits may go away
    await edge.until(lambda: len(edge.server.sessions) == 3)
    clients[0].send(b"x\r\n.\r\n")
    assert (await clients[0].reply()).startswith("250")
    assert (await clients[3].reply()).startswith("354")
    for client in (clients[1], clients[3]):
        client.send(b"x\r\n.\r\n")
        assert (await client.reply()).startswith("250")
    assert edge.server.memory.reserved == 0


async def test_a_message_larger_than_all_memory_still_comes(make_edge: MakeEdge) -> None:
    edge = await make_edge(limits=LimitSettings(memory_for_bodies="64Ki"))
    client = await edge.client()
    line = b"x" * 998 + b"\r\n"
    await client.begin(parameters=" SIZE=500000")
    client.send(b"\r\n" + line * 500 + b".\r\n")
    assert (await client.reply()).startswith("250")
    ((envelope, _),) = edge.messages()
    assert envelope.size == 500_002


async def test_many_pipelined_commands_do_not_hold_up_others(
    make_edge: MakeEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter megabyte of NOOPs is worked off a hundred at a time; others get their turn in between."""
    edge = await make_edge(junk_commands=1_000_000)
    client = await edge.client()
    loop = asyncio.get_running_loop()
    turns = [0]
    noop = COMMANDS[b"NOOP"]

    def count(session: Session, argument: bytes) -> None:
        turns[-1] += 1
        noop.function(session, argument)

    def turn() -> None:
        turns.append(0)
        if sum(turns) < 40_000:
            loop.call_soon(turn)

    monkeypatch.setitem(COMMANDS, b"NOOP", noop._replace(function=count))
    turn()
    client.send(b"NOOP\r\n" * 40_000)
    async with asyncio.timeout(20):
        await client.reader.readexactly(len("250 2.0.0 Ok\r\n") * 40_000)
    assert sum(turns) == 40_000
    assert max(turns) <= 200, "a turn of the loop may see the end of one hundred and the next"


async def test_a_client_that_does_not_read_is_not_served(make_edge: MakeEdge) -> None:
    """Replies are not piled up without limit for somebody who sends and never reads."""
    edge = await make_edge(junk_commands=1_000_000)
    client = await edge.client()
    client.writer.transport.pause_reading()
    (session,) = edge.server.sessions
    for _ in range(100):
        client.send(b"HELP\r\n" * 10_000)
        await asyncio.sleep(0)
    await edge.until(lambda: session._writes_paused and session._reads_paused)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert session.transport.get_write_buffer_size() < 1_000_000
    client.reset()
    await edge.until(lambda: not edge.server.sessions)


async def test_a_transaction_keeps_its_configuration(make_edge: MakeEdge) -> None:
    """Pinned at MAIL: a new cap counts from the next transaction on."""
    edge = await make_edge(max_recipients=2)
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    await client.ask("RCPT TO:<bob@example.test>")
    edge.configure(max_recipients=1)
    assert (await client.ask("RCPT TO:<alice@example.test>")).startswith("250")
    await client.ask("RSET")
    await client.ask("MAIL FROM:<a@example.org>")
    await client.ask("RCPT TO:<bob@example.test>")
    assert (await client.ask("RCPT TO:<alice@example.test>")).startswith("452")


async def test_a_revoked_relay_right_ends_the_session(make_edge: MakeEdge) -> None:
    edge = await make_edge(relay_clients=(ClientRule(("127.0.0.0/8",), ("Local",)),))
    relaying, local = await edge.client(), await edge.client()
    for client, recipient in ((relaying, "friend@far.example"), (local, "bob@example.test")):
        await client.ask("MAIL FROM:<bob@example.test>")
        assert (await client.ask(f"RCPT TO:<{recipient}>")).startswith("250")
    edge.configure(relay_clients=())
    reply = await relaying.ask("DATA")
    assert reply.startswith("421 4.7.0")
    assert "(policy-changed)" in reply
    assert (await local.ask("DATA")).startswith("354")


async def test_a_revoked_login_ends_the_session(make_edge: MakeEdge) -> None:
    edge = await make_edge(role=Role.SUBMISSION, auth_enabled=True, auth_directory="people", auth_require_tls=False)
    client = await edge.client()
    assert (await client.ask("AUTH PLAIN AGJvYgBzZWNyZXQtYg==")).startswith("235")
    edge.configure(auth_enabled=False)
    assert (await client.ask("MAIL FROM:<bob@example.test>")).startswith("421 4.7.0")


async def test_a_listener_without_policy_any_more(edge: Edge) -> None:
    """A configuration that no longer has the listener closes it for new transactions too."""
    from gatepost.core.configuration import CLOSED
    from gatepost.core.tables import Tables

    client = await edge.client()
    edge.server.on_configuration(Tables(CLOSED))
    assert (await client.ask("MAIL FROM:<a@example.org>")).startswith("421 4.3.2")
    assert (await refusal(edge)).startswith("421 4.3.2")
