"""BDAT beyond the transcripts: bytes that arrive in any pieces, large bodies, memory, a client that goes away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gatepost.core.manifest.relay_policy import BareNewline
from gatepost.core.manifest.settings import LimitSettings
from gatepost.edge.commands.bdat import Chunks
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

MESSAGE = b"Subject: x\r\n\r\n.\r\n..\r\nQUIT\r\nlast line without end"


async def begin(edge: Edge) -> Client:
    client = await edge.client()
    assert (await client.ask("MAIL FROM:<a@example.org>")).startswith("250")
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")
    return client


@pytest.mark.parametrize("cut", [1, 7, 100_000])
async def test_dots_and_commands_in_a_chunk_are_content(edge: Edge, cut: int) -> None:
    client = await begin(edge)
    for start in range(0, len(MESSAGE), 5):
        chunk = MESSAGE[start : start + 5]
        last = " LAST" if start + 5 >= len(MESSAGE) else ""
        data = f"BDAT {len(chunk)}{last}\r\n".encode() + chunk
        for place in range(0, len(data), cut):
            client.send(data[place : place + cut])
        assert (await client.reply()).startswith("250 2.0.0")
    ((envelope, value),) = edge.messages()
    assert value == MESSAGE
    assert envelope.size == len(MESSAGE)
    assert (await client.ask("QUIT")).startswith("221")


async def test_a_large_body_in_large_chunks(make_edge: MakeEdge) -> None:
    """It is written while it comes, as behind DATA, and memory stays bounded."""
    edge = await make_edge(limits=LimitSettings(memory_for_bodies="4Mi"))
    client = await begin(edge)
    piece = b"\r\n" + (b"x" * 998 + b"\r\n") * 2000
    for number in range(4):
        client.send(b"BDAT %d%b\r\n" % (len(piece), b" LAST" if number == 3 else b""))
        client.send(piece)
        assert (await client.reply()).startswith("250 2.0.0")
        assert edge.server.memory.reserved <= 4 * 2**20
    ((envelope, value),) = edge.messages()
    assert envelope.content is not None
    assert envelope.size == 4 * len(piece)
    assert value == b""


async def test_memory_is_given_back_in_every_case(edge: Edge) -> None:
    """RSET, EHLO, QUIT and a broken connection between two chunks."""
    for command in ("RSET", "EHLO client.example.org", "QUIT", ""):
        client = await begin(edge)
        client.send(b"BDAT 5\r\nabcd\r")
        assert (await client.reply()).startswith("250")
        assert edge.server.memory.reserved > 0
        if command:
            assert (await client.ask(command))[0] == "2"
        else:
            client.reset()
        await edge.until(lambda: edge.server.memory.reserved == 0)
    assert edge.messages() == []


async def test_a_first_chunk_waits_for_memory(make_edge: MakeEdge) -> None:
    edge = await make_edge(limits=LimitSettings(memory_for_bodies="256Ki"))
    holder = await begin(edge)
    holder.send(b"BDAT 5\r\nabcd\r")
    assert (await holder.reply()).startswith("250")
    client = await begin(edge)
    client.send(b"BDAT 4\r\nab\r\nBDAT 0 LAST\r\n")
    await edge.until(lambda: edge.server.memory.waiting == 1)
    assert metrics.BODY_MEMORY_WAITING.current() == {(): 1}
    assert (await holder.ask("RSET")).startswith("250")
    assert (await client.reply()).startswith("250 2.0.0 4 octets")
    assert (await client.reply()).startswith("250 2.0.0 Ok")
    assert len(edge.messages()) == 1


async def test_bare_line_ends_are_normalised_where_a_policy_says_so(make_edge: MakeEdge) -> None:
    edge = await make_edge(bare_newline=BareNewline.NORMALIZE)
    client = await begin(edge)
    client.send(b"BDAT 3\r\na\r\r")
    assert (await client.reply()).startswith("250")
    client.send(b"BDAT 4 LAST\r\n\n.\nb")
    assert (await client.reply()).startswith("250")
    ((_, value),) = edge.messages()
    assert value == b"a\r\n\r\n.\r\nb"


async def test_a_chunk_that_comes_too_slowly_ends_the_session(edge: Edge) -> None:
    client = await begin(edge)
    (session,) = edge.server.sessions
    client.send(b"BDAT 100000\r\nabc")
    await edge.until(lambda: isinstance(session.incoming, Chunks) and session.content_bytes == 3)
    now = session.loop.time()
    edge.server.sweep(now + 59)
    assert not session.closing
    edge.server.sweep(now + 61)
    assert b"421 4.4.2 the message came too slowly" in await client.rest()


async def test_the_parameters_of_rfc_3461_are_kept_byte_for_byte(edge: Edge) -> None:
    client = await edge.client()
    assert (await client.ask("MAIL FROM:<a@example.org> RET=hdrs ENVID=QQ+2B314")).startswith("250")
    orcpt = "rfc822;Bob+2Btag@Example.TEST"
    assert (await client.ask(f"RCPT TO:<bob@example.test> ORCPT={orcpt} NOTIFY=Success,DELAY")).startswith("250")
    assert (await client.ask(b"BDAT 0 LAST")).startswith("250")
    ((envelope, _),) = edge.messages()
    assert (envelope.ret, envelope.envid) == ("hdrs", "QQ+2B314")
    assert (envelope.recipients[0].notify, envelope.recipients[0].orcpt) == ("Success,DELAY", orcpt)
