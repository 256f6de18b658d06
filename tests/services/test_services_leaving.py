"""Fields that the edge marked as forged are in the log and nowhere else: every way out leaves them out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from gatepost.backends.resolver_table import TableResolver
from gatepost.cli.held_content import held_messages
from gatepost.core.envelope import Destination, Recipient
from gatepost.core.memory_body import MemoryBody
from gatepost.core.ports.store import Delivery, StoreOutcome, StoreResult
from gatepost.core.ports.transport import HostPort, OutgoingMessage, RemoteReply, TlsUse
from gatepost.router.near import NearStores

FORGED = b"Authentication-Results: mx.a.example; dmarc=pass\r\n"
HEAD, REST = b"Received: by x\r\n", b"From: <x@b.example>\r\n\r\nbody\r\n"
MESSAGE, LEFT = HEAD + FORGED + REST, HEAD + REST
STRIP = ((len(HEAD), len(FORGED)),)


class Store:
    def __init__(self) -> None:
        self.bodies: list[tuple[bytes, int]] = []

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    async def deliver(self, deliveries: Sequence[Delivery]) -> Sequence[StoreResult]:
        self.bodies += [(one.body.whole(), one.body.size) for one in deliveries]
        return [StoreResult(StoreOutcome.STORED)] * len(deliveries)


class Transport:
    def __init__(self) -> None:
        self.bodies: list[tuple[bytes, int]] = []

    async def send(self, host: HostPort, message: OutgoingMessage, tls: TlsUse, helo: str) -> Sequence[RemoteReply]:
        pieces = [piece async for piece in message.body.pieces(20)]
        self.bodies.append((b"".join(pieces), message.body.size))
        return [RemoteReply(250, "2.0.0", "queued", "mx.b.example")] * len(message.recipients)

    async def close(self) -> None: ...


async def put(world: Any, topic: str, envelope: Any, *, large: bool) -> None:
    inline = MESSAGE
    if large:
        envelope = msgspec.structs.replace(
            envelope, content=await world.content.write(envelope.id, MemoryBody(MESSAGE), 5.0)
        )
        inline = b""
    await world.put(topic, msgspec.structs.replace(envelope, strip=STRIP), inline)


@pytest.mark.parametrize("large", [False, True])
async def test_the_relay_sends_without_them(world: Any, running: Any, large: bool) -> None:
    transport = Transport()
    service = world.relay(transport, resolver=TableResolver().add("b.example", "A", "192.0.2.1"))
    envelope = world.envelope("x@b.example")
    envelope = msgspec.structs.replace(
        envelope,
        recipients=(Recipient("x@b.example", envelope.id),),
        destination=Destination(domain="b.example", site="s:b.example"),
    )
    await put(world, world.topics.relay, envelope, large=large)
    async with running(service):
        await world.finished(world.topics.relay, world.topics.group("relay"), 1)
    assert transport.bodies == [(LEFT, len(LEFT))]


@pytest.mark.parametrize("large", [False, True])
async def test_the_mailbox_stores_without_them(world: Any, running: Any, large: bool) -> None:
    store, topic = Store(), world.topics.mailbox("local")
    service = world.mailbox(store)
    envelope = world.envelope("ann@a.example")
    envelope = msgspec.structs.replace(
        envelope,
        recipients=(Recipient("ann@a.example", envelope.id),),
        destination=Destination("local", "ann@a.example"),
    )
    await put(world, topic, envelope, large=large)
    assert await held_messages(world.log, world.topics, ("local",), {envelope.id}) == {envelope.id: LEFT}
    async with running(service):
        await world.finished(topic, world.topics.group("mailbox.local"), 1)
    assert store.bodies == [(LEFT, len(LEFT))]


@pytest.mark.parametrize("near", [True, False])
async def test_the_router_hands_the_mark_on(world: Any, running: Any, near: bool) -> None:
    store = Store()
    router = world.router(near=NearStores({"local": store} if near else {}, time.monotonic))
    await put(world, world.topics.accepted, world.envelope("ann@a.example"), large=False)
    async with running(router):
        await world.finished(world.topics.accepted, world.topics.group("router"), 1)
    if near:
        assert store.bodies == [(LEFT, len(LEFT))]
    else:
        (item,) = await world.items(world.topics.mailbox("local"))
        assert (item.inline, item.envelope.strip) == (MESSAGE, STRIP)
