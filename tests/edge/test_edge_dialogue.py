"""The ordinary life of a message, as RFC 5321 D.1 shows it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Edge

MESSAGE = b"From: alice@example.org\r\nTo: bob@example.test\r\nSubject: Hi\r\n\r\nHello\r\n..dots\r\n"


@pytest.mark.requirement("S2-28")
async def test_the_whole_dialogue_with_its_codes(edge: Edge) -> None:
    """Fails without any of these: the greeting's form, the codes of each step, the id at the end, the record."""
    client = await edge.connect()
    assert await client.reply() == "220 mx.example.test ESMTP Gatepost"
    assert await client.ask("HELO client.example.org") == "250 mx.example.test"
    assert (await client.ask("MAIL FROM:<alice@example.org>")).startswith("250 ")
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250 ")
    assert (await client.ask("DATA")).startswith("354 ")
    client.send(MESSAGE.replace(b"\r\n..", b"\r\n...") + b".\r\n")
    queued = await client.reply()
    ((envelope, value),) = edge.messages()
    assert queued == f"250 2.0.0 Ok: queued as {envelope.id}"
    assert value == MESSAGE
    assert envelope.sha256 == hashlib.sha256(MESSAGE).hexdigest()
    assert (await client.ask("QUIT")).startswith("221 ")
    assert await client.rest() == b""
