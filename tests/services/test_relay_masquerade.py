"""The relay sends masqueraded mail; what is stored, and notifications of failures, stay right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from gatepost.core.configuration import Configuration
from gatepost.core.envelope import Destination, Recipient
from gatepost.core.masquerading import MasqueradePlan
from gatepost.core.memory_body import MemoryBody
from gatepost.core.ports.transport import HostPort, OutgoingMessage, RemoteReply, TlsUse
from gatepost.core.tables import Tables
from gatepost.relay.masquerade import MAX_HEADER, masqueraded

PLAN = MasqueradePlan("a.example", ("a.example",), entire=True, envelope=True)
MESSAGE = b"From: Ann <ann@pc7.a.example>\r\nTo: bob@pc8.a.example\r\n\r\nFrom: ann@pc7.a.example\r\n"


class Transport:
    """Keeps what was sent, and answers."""

    def __init__(self, reply: RemoteReply) -> None:
        self.reply = reply
        self.sent: list[tuple[OutgoingMessage, bytes]] = []

    async def send(self, host: HostPort, message: OutgoingMessage, tls: TlsUse, helo: str) -> Sequence[RemoteReply]:
        self.sent.append((message, message.body.whole()))
        return [self.reply] * len(message.recipients)

    async def close(self) -> None: ...


def tables(world: Any, plan: MasqueradePlan | None = PLAN, *, default: bool = True) -> Tables:
    (config,) = world.tables.configuration.domains
    return Tables(Configuration(1, (msgspec.structs.replace(config, masquerade=plan, default=default),), ()))


async def sent(
    world: Any, running: Any, sender: str, reply: RemoteReply, configured: Tables
) -> tuple[OutgoingMessage, bytes]:
    envelope = world.envelope("far@b.example", message=MESSAGE, reverse_path=sender)
    own = msgspec.structs.replace(
        envelope,
        recipients=(Recipient("far@b.example", f"{envelope.id[:25]}0"),),
        destination=Destination(hosts=("[192.0.2.7]",), site="s"),
    )
    await world.put(world.topics.relay, own, MESSAGE)
    transport = Transport(reply)
    made = world.relay(transport)
    made.on_configuration(configured)
    async with running(made):
        await world.finished(world.topics.relay, world.topics.group("relay"), 1)
    (one,) = transport.sent
    return one


OK = RemoteReply(250, "2.0.0", "queued", "mx.b.example")


@pytest.mark.parametrize(
    ("sender", "plan", "path", "hidden"),
    [
        ("ann@a.example", PLAN, "ann@a.example", True),
        ("ann@pc7.a.example", PLAN, "ann@a.example", True),
        ("", PLAN, "", True),
        ("x@elsewhere.example", PLAN, "x@elsewhere.example", False),
        ("ann@a.example", None, "ann@a.example", False),
        ("ann@pc7.a.example", msgspec.structs.replace(PLAN, envelope=False), "ann@pc7.a.example", True),
    ],
)
async def test_what_leaves(
    world: Any, running: Any, sender: str, plan: MasqueradePlan | None, path: str, hidden: bool
) -> None:
    configured = tables(world, plan, default=sender == "")
    message, content = await sent(world, running, sender, OK, configured)
    expected = MESSAGE.replace(b"pc7.", b"", 1) if hidden else MESSAGE
    assert (message.reverse_path, content) == (path, expected)
    assert message.body.size == len(expected)
    (stored,) = await world.items(world.topics.relay)
    assert (stored.envelope.reverse_path, stored.inline) == (sender, MESSAGE)


@pytest.mark.requirement("S4-37")
async def test_a_failure_is_reported_to_the_address_that_left(world: Any, running: Any) -> None:
    """Fails without the notification going to the masqueraded sender, about mail as it came."""
    refused = RemoteReply(550, "5.1.1", "no such user", "mx.b.example")
    await sent(world, running, "ann@pc7.a.example", refused, tables(world))
    (told,) = await world.items(world.topics.accepted)
    assert [recipient.address for recipient in told.envelope.recipients] == ["ann@a.example"]
    assert b"From: Ann <ann@pc7.a.example>" in told.inline


async def test_what_is_deferred_stays_as_it_was_received(world: Any, running: Any) -> None:
    later = RemoteReply(451, "4.2.0", "later", "mx.b.example")
    await sent(world, running, "ann@pc7.a.example", later, tables(world))
    (waiting,) = await world.items(world.topics.retry("1m"))
    assert (waiting.envelope.reverse_path, waiting.inline) == ("ann@pc7.a.example", MESSAGE)


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
@pytest.mark.parametrize(
    "message",
    [
        MESSAGE,
        MESSAGE + b"x" * 200_000,
        b"X: " + b"y" * 100_000 + b"\r\n" + MESSAGE,
        b"From: ann@pc7.a.example\r\n",
        b"From: ann@pc7.a.example",
        b"\r\nFrom: ann@pc7.a.example\r\n",
        b"",
    ],
    ids=["small", "large", "long header", "no body", "no line end", "no header", "empty"],
)
async def test_pieces_are_the_whole(message: bytes, size: int) -> None:
    if size < 64 and len(message) > 1000:
        size *= 100
    header = b"" if message.startswith(b"\r\n") else message
    expected = message.replace(b"pc7.", b"", 1) if header else message
    body = await masqueraded(MemoryBody(message), PLAN)
    pieces = [piece async for piece in body.pieces(size)]
    assert b"".join(pieces) == body.whole() == expected
    assert all(0 < len(piece) <= size for piece in pieces)
    assert (body.size, body.sha256) == (len(expected), MemoryBody(expected).sha256)


async def test_a_header_without_end_stays() -> None:
    endless = b"From: ann@pc7.a.example\r\n" + b"X: y\r\n" * (MAX_HEADER // 6 + 1) + b"Z: " + b"z" * 100_000
    body = MemoryBody(endless)
    assert await masqueraded(body, PLAN) is body
