"""The mailbox service: stores, defers on 4xx, notifies on 5xx, quarantines what cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from gatepost.core import event_kinds
from gatepost.core.envelope import Destination, Recipient
from gatepost.core.memory_body import MemoryBody
from gatepost.core.ports.store import Delivery, StoreOutcome, StoreResult

STORED = StoreResult(StoreOutcome.STORED)


class Store:
    """Remembers what it was given; answers per mailbox."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.answers: dict[str, StoreResult] = {}

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    async def deliver(self, deliveries: Sequence[Delivery]) -> Sequence[StoreResult]:
        results = []
        for one in deliveries:
            result = self.answers.get(one.mailbox, STORED)
            if result is STORED:
                self.stored[one.mailbox] = one.prepend + one.body.whole()
            results.append(result)
        return results


def copy(world: Any, name: str, **more: Any) -> Any:
    envelope = world.envelope(f"{name}@a.example", parent="01HF7YAT3VMNYNQV3RQQ4BXDW8", **more)
    recipient = Recipient(f"{name}@a.example", envelope.id)
    return msgspec.structs.replace(
        envelope, recipients=(recipient,), destination=Destination("local", f"{name}@a.example")
    )


async def test_stored_with_return_path_and_delivered_to(world: Any, running: Any) -> None:
    store = Store()
    topic = world.topics.mailbox("local")
    await world.put(topic, copy(world, "ann", prepend="Received: x\r\n"), b"Subject: s\r\n\r\nb\r\n")
    async with running(world.mailbox(store)):
        await world.finished(topic, world.topics.group("mailbox.local"), 1)
    assert store.stored["ann@a.example"] == (
        b"Return-Path: <sender@elsewhere.example>\r\nDelivered-To: ann@a.example\r\nReceived: x\r\n"
        b"Subject: s\r\n\r\nb\r\n"
    )
    assert world.told.kinds() == [event_kinds.STORED]


async def test_a_body_by_reference_is_read_back(world: Any, running: Any) -> None:
    store = Store()
    body = b"Subject: big\r\n\r\n" + b"x" * 3_000_000
    reference = await world.content.write("id", MemoryBody(body), 10)
    topic = world.topics.mailbox("local")
    await world.put(topic, copy(world, "ann", content=reference), b"")
    async with running(world.mailbox(store)):
        await world.finished(topic, world.topics.group("mailbox.local"), 1)
    assert store.stored["ann@a.example"].endswith(body)


async def test_who_asked_is_told_of_the_delivery(world: Any, running: Any) -> None:
    """RFC 3461 5.2.3: a small and a large message; the notification is durable before the record is finished."""
    store = Store()
    body = b"Subject: big\r\n\r\n" + b"x" * 300_000
    reference = await world.content.write("id", MemoryBody(body), 10)
    topic = world.topics.mailbox("local")
    for name, more, value in (("ann", {}, b"Subject: small\r\n\r\n"), ("bob", {"content": reference}, b"")):
        own = copy(world, name, **more)
        recipient = msgspec.structs.replace(own.recipients[0], notify="SUCCESS")
        await world.put(topic, msgspec.structs.replace(own, recipients=(recipient,)), value)
    async with running(world.mailbox(store)):
        await world.finished(topic, world.topics.group("mailbox.local"), 2)
    told = [record.value for record in await world.all(world.topics.accepted)]
    assert len(told) == 2
    for subject, address in ((b"small", b"ann@a.example"), (b"big", b"bob@a.example")):
        (one,) = (value for value in told if b"Subject: " + subject in value)
        assert b"Final-Recipient: rfc822; " + address + b"\r\nAction: delivered\r\nStatus: 2.0.0" in one
    assert world.told.kinds() == [event_kinds.STORED] * 2


async def test_a_damaged_body_is_quarantined(world: Any, running: Any) -> None:
    reference = await world.content.write("id", MemoryBody(b"abc" * 100_000), 10)
    wrong = msgspec.structs.replace(reference, sha256="0" * 64)
    topic = world.topics.mailbox("local")
    await world.put(topic, copy(world, "ann", content=wrong), b"")
    async with running(world.mailbox(Store())):
        await world.finished(topic, world.topics.group("mailbox.local"), 1)
    (record,) = await world.all(world.topics.quarantine)
    assert b"cannot be read back" in (record.header("reason") or b"")


async def test_deferred_goes_to_a_tier_and_comes_back(world: Any, running: Any) -> None:
    store = Store()
    store.answers["ann@a.example"] = StoreResult(StoreOutcome.DEFERRED, 452, "4.3.1", "disk full")
    topic = world.topics.mailbox("local")
    await world.put(topic, copy(world, "ann"), key=b"k")
    async with running(world.mailbox(store)):
        (item,) = await world.some(world.topics.retry("1m"), 1)
    assert item.envelope.deferral.return_topic == topic
    assert item.envelope.deferral.last_reply == "452 4.3.1 disk full"
    assert world.told.kinds() == [event_kinds.DEFERRED]


async def test_refused_makes_a_dsn(world: Any, running: Any) -> None:
    store = Store()
    store.answers["ann@a.example"] = StoreResult(StoreOutcome.REFUSED, 550, "5.1.1", "no mailbox", "dovecot")
    topic = world.topics.mailbox("local")
    await world.put(topic, copy(world, "ann"))
    await world.put(topic, copy(world, "bob"))
    async with running(world.mailbox(store)):
        (dsn,) = await world.some(world.topics.accepted, 1)
        await world.finished(topic, world.topics.group("mailbox.local"), 2)
    assert dsn.envelope.recipients[0].address == "sender@elsewhere.example"
    assert b"Diagnostic-Code: smtp; 550 5.1.1 no mailbox" in dsn.inline
    assert list(store.stored) == ["bob@a.example"]


async def test_where_each_has_its_own_answer_none_waits_for_another(world: Any, running: Any) -> None:
    """A kill then repeats only deliveries without an answer: others are finished while one hangs."""

    class Hanging(Store):
        def __init__(self) -> None:
            super().__init__()
            self.gate = asyncio.Event()

        async def deliver(self, deliveries: Sequence[Delivery]) -> Sequence[StoreResult]:
            if any(one.mailbox == "bob@a.example" for one in deliveries):
                await self.gate.wait()
            return await super().deliver(deliveries)

    store = Hanging()
    topic, group = world.topics.mailbox("local"), world.topics.group("mailbox.local")
    for name in ("ann", "bob", "carol"):
        # One partition, so that they come in one fetch.
        await world.put(topic, copy(world, name), key=b"same")
    async with running(world.mailbox(store, together=False)):
        async with asyncio.timeout(10):
            while sorted(store.stored) != ["ann@a.example", "carol@a.example"]:
                await asyncio.sleep(0.01)
        await world.finished(topic, group, 1)
        assert sum((await world.log.committed(topic, group)).values()) == 1, "bob's is the lowest unfinished"
        store.gate.set()
        await world.finished(topic, group, 3)
