"""Clients that are slow, silent, deaf or endless: each meets a limit, and others do not notice."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import pytest

from gatepost.core.manifest.settings import LimitSettings
from gatepost.edge.commands import starttls
from gatepost.edge.content import LONGEST_CONTENT
from gatepost.edge.session import MOST_DEFERRALS
from gatepost.telemetry import metrics
from gatepost.work.content_trimming import MARGIN_S

if TYPE_CHECKING:
    from conftest import Edge, MakeEdge

MINUTE = 60.0


def ended(check: str) -> float:
    return metrics.SESSIONS_ENDED.values.get(("mx", check), 0)


async def test_an_octet_a_minute_in_a_command(edge: Edge) -> None:
    """An octet is no sign of life: the session ends five minutes after its last line."""
    before = ended("idle-timeout")
    client = await edge.client()
    (session,) = edge.server.sessions
    start = asyncio.get_running_loop().time()
    line = b""
    for minute, octet in enumerate(b"NOOP"):
        client.send(bytes([octet]))
        line += bytes([octet])
        await edge.until(lambda line=line: session._buffer == line)
        edge.server.sweep(start + minute * MINUTE)
        assert not session.closing
    edge.server.sweep(start + 5 * MINUTE + 2)
    assert (await client.rest()).startswith(b"421 4.4.2 ")
    assert ended("idle-timeout") == before + 1


async def test_a_client_that_says_nothing(edge: Edge) -> None:
    client = await edge.connect()
    assert (await client.reply()).startswith("220 ")
    edge.server.sweep(asyncio.get_running_loop().time() + 5 * MINUTE + 1)
    assert (await client.rest()).startswith(b"421 4.4.2 ")


async def test_an_octet_a_minute_in_data(edge: Edge) -> None:
    before = ended("minimum-rate")
    client = await (await edge.client()).begin()
    (session,) = edge.server.sessions
    start = asyncio.get_running_loop().time()
    client.send(b"x")
    await edge.until(lambda: session.content_bytes == 1)
    edge.server.sweep(start + MINUTE + 1)
    assert (await client.rest()).startswith(b"421 4.4.2 ")
    assert ended("minimum-rate") == before + 1
    await client.close()
    await edge.until(lambda: not edge.server.sessions)
    assert edge.server.memory.reserved == 0


async def test_content_that_comes_for_half_a_day(make_edge: MakeEdge) -> None:
    """Fast enough for the minimum rate, and still too long: the first pieces would be trimmed before the record."""
    assert LONGEST_CONTENT < MARGIN_S / 2 + 1
    edge = await make_edge(limits=LimitSettings(minimum_bytes_per_second=0), idle_timeout=1e6)
    client = await (await edge.client()).begin()
    start = asyncio.get_running_loop().time()
    edge.server.sweep(start + LONGEST_CONTENT - 1)
    (session,) = edge.server.sessions
    assert not session.closing
    edge.server.sweep(start + LONGEST_CONTENT + 1)
    assert (await client.rest()).startswith(b"421 4.4.2 ")


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02"], ids=["nothing", "the start of a handshake"])
async def test_a_handshake_that_does_not_end(
    make_edge: MakeEdge, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(starttls, "HANDSHAKE_TIMEOUT", 0.2)
    edge = await make_edge(tls=True)
    client = await edge.client()
    assert (await client.ask("STARTTLS")).startswith("220 ")
    client.send(sent)
    await edge.until(lambda: not edge.server.sessions)
    assert await client.rest() == b""


async def test_a_handshake_that_does_not_end_with_implicit_tls(
    make_edge: MakeEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no session yet, but counts as one; others get theirs, and the limit keeps its place for it."""
    monkeypatch.setattr("gatepost.edge.doorway.HANDSHAKE_TIMEOUT", 0.3)
    edge = await make_edge(implicit=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(b"\x16\x03\x01\x02")
    assert edge.authority is not None
    context = ssl.create_default_context(cafile=str(edge.authority.certificate))
    other = await edge.connect(ssl=context, server_hostname="mx.example.test")
    assert (await other.reply()).startswith("220 ")
    assert edge.server.open_connections == 2
    async with asyncio.timeout(20):
        assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize(
    "command", ["NOOP", "RSET", "VRFY bob", "HELP", "EHLO client.example.org", "HELO x.example"]
)
async def test_commands_that_bring_no_mail_on(make_edge: MakeEdge, command: str) -> None:
    edge = await make_edge(junk_commands=5)
    before = ended("junk-commands")
    client = await edge.client()  # EHLO counts as well
    for _ in range(4):
        assert (await client.ask(command))[0] == "2"
    reply = (await client.ask(command)) + (await client.rest()).decode()
    assert reply.startswith("421 4.7.0 ")
    assert "(junk-commands)" in reply
    assert ended("junk-commands") == before + 1


async def test_a_message_makes_up_for_commands(make_edge: MakeEdge) -> None:
    """A client that keeps its connection and asks whether we are there is no nuisance."""
    edge = await make_edge(junk_commands=5)
    client = await edge.client()
    for _ in range(10):
        for _ in range(4):
            assert (await client.ask("NOOP")).startswith("250")
        await client.begin()
        client.send(b"x\r\n.\r\n")
        assert (await client.reply()).startswith("250 ")
    assert len(edge.records()) == 10


async def test_transactions_that_are_begun_and_never_ended(make_edge: MakeEdge) -> None:
    edge = await make_edge(junk_commands=20)
    client = await edge.client()
    replies = []
    while not (replies and replies[-1].startswith("421")):
        assert len(replies) < 100
        replies += [await client.ask("MAIL FROM:<a@example.org>"), await client.ask("RSET")]
    assert len(replies) == 40


async def test_endless_recipients(make_edge: MakeEdge) -> None:
    """452 for each above the limit, as a list's server expects it; but not for ever."""
    edge = await make_edge(max_recipients=2)
    before = ended("deferrals")
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    client.send(b"RCPT TO:<bob@example.test>\r\n" * 1)
    client.send(b"RCPT TO:<alice@example.test>\r\n")
    for _ in range(2):
        assert (await client.reply()).startswith("250")
    client.send(b"RCPT TO:<more@example.test>\r\n" * (MOST_DEFERRALS + 50))
    for _ in range(MOST_DEFERRALS):
        assert (await client.reply()).startswith("452 4.5.3 ")
    assert (await client.rest()).splitlines()[-1].startswith(b"421 4.7.0 ")
    assert ended("deferrals") == before + 1


async def test_a_thousand_recipients_at_once_still_send_to_the_first(make_edge: MakeEdge) -> None:
    """RFC 5321 4.5.3.1.10: who hears 452 sends to those that were taken."""
    edge = await make_edge(max_recipients=2)
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    client.send("".join(f"RCPT TO:<{name}@example.test>\r\n" for name in ("bob", "alice", *["x"] * 998)))
    codes = [(await client.reply())[:3] for _ in range(1000)]
    assert codes == ["250"] * 2 + ["452"] * 998
    assert (await client.ask("DATA")).startswith("354")
    client.send(b"x\r\n.\r\n")
    assert (await client.reply()).startswith("250 ")


async def test_endless_unknown_commands(edge: Edge) -> None:
    before = ended("errors")
    client = await edge.client()
    client.send(b"WHATEVER\r\n" * 100)
    lines = (await client.rest()).splitlines()
    assert len(lines) == 21
    assert lines[-1].startswith(b"421 4.7.0 ")
    assert ended("errors") == before + 1


async def test_what_is_in_use_is_shown_beside_its_limit(make_edge: MakeEdge) -> None:
    edge = await make_edge(limits=LimitSettings(sessions=7, memory_for_bodies="1Mi"))
    open_before = metrics.SESSIONS_OPEN.current()[("mx",)]
    await (await edge.client()).begin()
    assert metrics.SESSIONS_OPEN.current()[("mx",)] == open_before + 1
    assert metrics.SESSIONS_LIMIT.current() == {(): 7}
    assert metrics.BODY_MEMORY.current() == {(): edge.server.memory.reserved}
    assert edge.server.memory.reserved > 0
    assert metrics.BODY_MEMORY_LIMIT.current() == {(): 2**20}
