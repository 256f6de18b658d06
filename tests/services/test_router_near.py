"""Stores in the router's own process: the file is the durable output, and all else goes the long way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gatepost.backends.store_maildir import MaildirStore
from gatepost.core import event_kinds
from gatepost.core.envelope import ContentRef
from gatepost.core.ids import derive_id
from gatepost.core.manifest.settings import MaildirSettings
from gatepost.core.ports.log import LogUnavailable
from gatepost.core.ports.store import Delivery, StoreOutcome, StoreResult
from gatepost.router.near import LIMIT_S, REST_S, NearStores
from gatepost.router.service import Router

STORED = StoreResult(StoreOutcome.STORED)
DEFERRED = StoreResult(StoreOutcome.DEFERRED, 452, "4.3.1", "full")


class FakeStore:
    """Answers as told; `gate` holds deliveries up while it is closed."""

    def __init__(self, *answers: StoreResult) -> None:
        self.answers = list(answers)
        self.deliveries: list[Delivery] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    async def deliver(self, deliveries: Sequence[Delivery]) -> Sequence[StoreResult]:
        self.deliveries += deliveries
        await self.gate.wait()
        return [self.answers.pop(0) if self.answers else STORED for _ in deliveries]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def router(world: Any, near: NearStores) -> Router:
    return world.router(stores={"dovecot.a.example": "dovecot"}, near=near)


async def routed(world: Any, count: int) -> None:
    await world.finished(world.topics.accepted, world.topics.group("router"), count)


async def test_a_copy_goes_into_the_store_and_not_into_the_log(world: Any, running: Any) -> None:
    store = FakeStore()
    sent = await world.put(world.topics.accepted, world.envelope("Bob+x@a.example"), b"Subject: x\r\n\r\nhi\r\n")
    async with running(router(world, NearStores({"local": store}, Clock()))):
        await routed(world, 1)
    (delivery,) = store.deliveries
    assert delivery.id == derive_id(sent.id, "bob@a.example", "store")
    assert (delivery.mailbox, delivery.body.whole()) == ("bob@a.example", b"Subject: x\r\n\r\nhi\r\n")
    assert delivery.prepend.startswith(
        b"Return-Path: <sender@elsewhere.example>\r\nDelivered-To: Bob@a.example\r\n"
    )
    assert await world.items(world.topics.mailbox("local")) == []
    kinds = world.told.kinds()
    assert kinds.count(event_kinds.ROUTED) == kinds.count(event_kinds.STORED) == 1


async def test_what_the_store_does_not_take_goes_the_long_way(world: Any, running: Any) -> None:
    """One of two copies is deferred: it alone becomes a record, under the id that the store has seen."""
    store = FakeStore(STORED, DEFERRED)
    await world.put(world.topics.accepted, world.envelope("bob@a.example", "carol@a.example"))
    async with running(router(world, NearStores({"local": store}, Clock()))):
        (item,) = await world.some(world.topics.mailbox("local"), 1)
        await routed(world, 1)
    assert item.envelope.id == store.deliveries[1].id
    assert item.envelope.destination.mailbox == "carol@a.example"
    assert world.told.kinds().count(event_kinds.STORED) == 1


async def test_other_stores_and_bodies_by_reference_go_the_long_way(world: Any, running: Any) -> None:
    world.users.add("dora", mail_host="dovecot.a.example")
    store = FakeStore()
    await world.put(world.topics.accepted, world.envelope("dora@a.example"))
    reference = ContentRef(world.topics.content_transit, 0, (0,), 100_000, "00")
    await world.put(world.topics.accepted, world.envelope("bob@a.example", content=reference), b"")
    async with running(router(world, NearStores({"local": store}, Clock()))):
        await world.some(world.topics.mailbox("dovecot"), 1)
        (large,) = await world.some(world.topics.mailbox("local"), 1)
    assert large.envelope.content == reference
    assert store.deliveries == []


async def test_a_store_that_hangs_is_left_alone_for_a_while(
    world: Any, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other mail goes on, and the late delivery has the id by which the ledger knows it."""
    monkeypatch.setattr("gatepost.router.near.LIMIT_S", 0.05)
    store, clock = FakeStore(), Clock()
    store.gate.clear()
    near = NearStores({"local": store}, clock)
    await world.put(world.topics.accepted, world.envelope("bob@a.example"))
    async with running(router(world, near)):
        (item,) = await world.some(world.topics.mailbox("local"), 1)
        assert item.envelope.id == store.deliveries[0].id
        assert not near.takes("local")
        await world.put(world.topics.accepted, world.envelope("carol@a.example"))
        await world.some(world.topics.mailbox("local"), 2)
        assert len(store.deliveries) == 1, "a resting store was tried"
        store.gate.set()
        clock.now += REST_S
        assert near.takes("local")
        await world.put(world.topics.accepted, world.envelope("ann@a.example"))
        await routed(world, 3)
    assert len(store.deliveries) == 2
    assert LIMIT_S < REST_S


async def test_a_step_repeated_after_a_failed_append_stores_once(
    world: Any, running: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has its copy, then the record for the other destination fails. Fails without the ledger's ids."""
    store = MaildirStore(MaildirSettings(path="mail"), tmp_path, "mx.a.example")
    await store.start()
    append_many, failures = world.log.append_many, iter([True])

    async def failing_once(entries: Any, limit: float) -> Any:
        if next(failures, False):
            raise LogUnavailable("away for the test")
        return await append_many(entries, limit)

    monkeypatch.setattr(world.log, "append_many", failing_once)
    await world.put(world.topics.accepted, world.envelope("bob@a.example", "far@b.example"))
    async with running(router(world, NearStores({"local": store}, Clock()))):
        await world.some(world.topics.relay, 1)
        await routed(world, 1)
    await store.close()
    assert len(list((tmp_path / "mail" / "bob@a.example" / "new").iterdir())) == 1
    assert world.told.kinds().count(event_kinds.STORED) == 1
