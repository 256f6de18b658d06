"""SMTP smuggling and bad synchronisation: tests/data/smuggling, at every place and in every segmentation."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gatepost.core.manifest.relay_policy import BareNewline

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

CASES = yaml.safe_load((Path(__file__).parent.parent / "data/smuggling/end-of-data.yml").read_text("utf-8"))
FOLLOW_UP = CASES["follow_up"]["bytes"].encode("latin-1")
SECOND_MAIL = "".join(f"{line}\r\n" for line in CASES["smuggled_second_mail"]["lines"]).encode()


def sequence(case: dict[str, Any]) -> bytes:
    found = case["bytes"].encode("latin-1")
    assert found == bytes.fromhex(case["hex"])
    return found


MALFORMED = [(case["id"], sequence(case)) for case in CASES["tool_order"]]
IN_FRONT = {"after-a-line": b"text\r\n", "after-a-byte": b"text"}
each_sequence = pytest.mark.parametrize("malformed", [s for _, s in MALFORMED], ids=[i for i, _ in MALFORMED])
each_place = pytest.mark.parametrize("front", IN_FRONT.values(), ids=IN_FRONT.keys())


async def in_segments(client: Client, parts: list[bytes]) -> None:
    """Send each part in a segment of its own, which the server reads by itself."""
    for part in parts:
        client.send(part)
        for _ in range(6):  # turns of the loop that the server runs in, too
            await asyncio.sleep(0)


def is_end_of_data(data: bytes) -> bool:
    return b"\r\n.\r\n" in data


@each_sequence
@each_place
async def test_a_malformed_end_is_refused_at_the_real_end(edge: Edge, malformed: bytes, front: bytes) -> None:
    """One reply, a refusal, after the real end of data; what was smuggled behind it is never a command."""
    client = await edge.client()
    for place in range(len(malformed) + 1):
        await client.begin()
        whole = front + malformed
        assert not is_end_of_data(whole), "the table would contradict RFC 5321 4.1.1.4"
        await in_segments(client, [front + malformed[:place], malformed[place:] + SECOND_MAIL[:-5]])
        client.send(FOLLOW_UP)
        reply = await client.reply()
        assert reply.startswith(("550 5.5.2", "550 5.6.0")), reply
        assert (await client.ask("NOOP")) == "250 2.0.0 Ok", "a reply to something smuggled is in between"
    assert not edge.records()


@each_sequence
@each_place
async def test_normalized_content_has_no_line_end_that_could_smuggle(
    make_edge: MakeEdge, malformed: bytes, front: bytes
) -> None:
    """With Normalize one message arrives, without any bare CR, LF or lone dot; with a NUL it is refused as ever."""
    edge = await make_edge(bare_newline=BareNewline.NORMALIZE)
    client = await edge.client()
    for place in range(len(malformed) + 1):
        await client.begin()
        await in_segments(client, [front + malformed[:place], malformed[place:] + SECOND_MAIL[:-5]])
        client.send(FOLLOW_UP)
        reply = await client.reply()
        assert reply.startswith("550 5.6.0" if b"\0" in malformed else "250 "), reply
        assert (await client.ask("NOOP")) == "250 2.0.0 Ok"
    expected = 0 if b"\0" in malformed else len(malformed) + 1
    assert len(edge.messages()) == expected
    for _, content in edge.messages():
        assert content.count(b"\n") == content.count(b"\r") == content.count(b"\r\n")
        assert b"\r\n.\r\n" not in b"\r\n" + content
        assert b"MAIL FROM:<smuggled" in content


async def test_normalizing_only_for_listed_clients(make_edge: MakeEdge) -> None:
    """Fails if normalizeNetworks were ignored, or counted for everybody."""
    for networks, code in ((("127.0.0.0/8",), "250"), (("192.0.2.0/24",), "550")):
        edge = await make_edge(normalize_networks=networks)
        client = await (await edge.client()).begin()
        client.send(b"a\nb\r\n.\r\n")
        assert (await client.reply()).startswith(code)


async def test_control_the_correct_sequence(edge: Edge) -> None:
    """The same bytes with the correct end are a message: the refusals above are about the sequence."""
    (control,) = CASES["control"]
    client = await edge.client()
    for place in range(len(sequence(control)) + 1):
        await client.begin()
        await in_segments(client, [b"text" + sequence(control)[:place], sequence(control)[place:]])
        assert (await client.reply()).startswith("250 ")
    assert [content for _, content in edge.messages()] == [b"text\r\n"] * 6


async def test_bad_synchronisation(edge: Edge) -> None:
    """A second mail in the same write, whose content comes without waiting for 354, is refused; the first stays."""
    client = await edge.connect()
    await client.reply()
    for step in CASES["bad_synchronisation"]["steps"][:-1]:
        assert step["wait_reply"]
        client.send(step["send"])
        assert (await client.reply())[0] in "23"
    client.send(CASES["bad_synchronisation"]["steps"][-1]["send"])
    replies = (await client.rest()).decode().splitlines()
    assert [reply[:3] for reply in replies] == ["250", "250", "250", "503", "421"]
    expected = CASES["bad_synchronisation"]["expected"]
    assert len(edge.messages()) == expected["mails_delivered_at_most"]
    assert int(replies[-1][0]) in expected["reply_class_for_second"]


async def test_content_ahead_of_354_is_refused_when_data_waits(edge: Edge) -> None:
    """DATA waiting for memory gives a client more time to send ahead; it gets no further for that."""
    everything = edge.server.memory
    client = await edge.client()
    held = 256 * 2**20
    assert everything.try_reserve(held)
    client.send(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\n")
    assert (await client.reply()).startswith("250")
    assert (await client.reply()).startswith("250")
    client.send(b"Subject: early\r\n\r\n.\r\n")
    await in_segments(client, [b""])
    everything.release(held)
    replies = (await client.rest()).decode().splitlines()
    assert [reply[:3] for reply in replies] == ["503", "421"]
    assert not edge.records()


async def test_early_talker(edge: Edge) -> None:
    """Bytes that wait before the greeting was written end the session (the client cannot be an honest one)."""
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", edge.port)) as sock:
        # The kernel completes the connection; the edge, in this thread, sees it together with what follows.
        sock.sendall(b"EHLO early.example.org\r\n")
        sock.setblocking(False)
        reply = await loop.sock_recv(sock, 1000)
    assert reply.startswith(b"554 5.5.0 ")
    assert b"(early-talker)" in reply
    assert reply.count(b"\r\n") == 1


async def test_commands_behind_starttls_go_with_the_connection(make_edge: MakeEdge) -> None:
    """CVE-2011-0411: fails if a command sent in clear behind STARTTLS were ever obeyed, also inside TLS."""
    edge = await make_edge(tls=True)
    client = await edge.client()
    client.send(b"STARTTLS\r\nMAIL FROM:<injected@example.org>\r\n")
    replies = (await client.rest()).decode().splitlines()
    assert [reply[:9] for reply in replies] == ["421 4.7.0"]
    assert "(starttls-injection)" in replies[0]
