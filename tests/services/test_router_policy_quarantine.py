"""Copies that a policy puts into quarantine: there with the reason, once, and nowhere else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gatepost.core import event_kinds
from gatepost.core.envelope import Recipient
from gatepost.core.ids import derive_id
from gatepost.core.memory_body import MemoryBody
from gatepost.core.records import read_item
from gatepost.telemetry import metrics

WAIT_S = 10.0
REASON = "dnsbl: bl.example"
MESSAGE = b"Subject: x\r\n\r\nhi\r\n"


def quarantined(*names: str) -> tuple[Recipient, ...]:
    return tuple(Recipient(f"{name}@a.example", quarantine=REASON) for name in names)


@pytest.mark.parametrize("whole", [True, False], ids=["envelope", "recipients"])
async def test_a_whole_message_is_stopped_as_it_came(world: Any, running: Any, whole: bool) -> None:
    envelope = world.envelope("bob@a.example", "ann@a.example", quarantine=REASON if whole else "")
    if not whole:
        envelope = msgspec.structs.replace(envelope, recipients=quarantined("bob", "ann"))
    unreadable = metrics.UNREADABLE.values.get((world.topics.accepted,), 0)
    await world.put(world.topics.accepted, envelope, MESSAGE)
    async with running(world.router()):
        (item,) = await world.some(world.topics.quarantine, 1)
        await world.finished(world.topics.accepted, world.topics.group("router"), 1)
    assert item.envelope == envelope
    assert item.inline == MESSAGE
    (record,) = await world.all(world.topics.quarantine)
    assert record.header("reason") == REASON.encode()
    assert await world.all(world.topics.mailbox("local")) == []
    told = [
        (one.recipient, one.facts["reason"]) for one in world.told.events if one.kind == event_kinds.QUARANTINED
    ]
    assert told == [("bob@a.example", REASON), ("ann@a.example", REASON)]
    assert metrics.UNREADABLE.values.get((world.topics.accepted,), 0) == unreadable, "nothing is wrong with it"


async def test_a_part_of_the_recipients_is_stopped(world: Any, running: Any) -> None:
    """The others get their copies; a repeated step gives the part the same id."""
    envelope = world.envelope("ann@a.example")
    envelope = msgspec.structs.replace(envelope, recipients=(*envelope.recipients, *quarantined("bob", "carol")))
    for _ in range(2):
        await world.put(world.topics.accepted, envelope, MESSAGE)
    async with running(world.router()):
        stored = await world.some(world.topics.mailbox("local"), 2)
        stopped = await world.some(world.topics.quarantine, 2)
    assert {item.envelope.recipients[0].address for item in stored} == {"ann@a.example"}
    assert {item.envelope.id for item in stopped} == {derive_id(envelope.id, "", "quarantine")}
    assert [one.address for one in stopped[0].envelope.recipients] == ["bob@a.example", "carol@a.example"]
    assert stopped[0].envelope.parent == envelope.id
    assert stopped[0].inline == MESSAGE


async def test_a_large_body_goes_along(world: Any, running: Any) -> None:
    body = MemoryBody(b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 60_000)
    reference = await world.content.write("one", body, WAIT_S)
    envelope = world.envelope(content=reference, sha256=body.sha256, size=body.size)
    envelope = msgspec.structs.replace(envelope, recipients=(Recipient("ann@a.example"), *quarantined("bob")))
    await world.put(world.topics.accepted, envelope, b"")
    async with running(world.router()):
        await world.some(world.topics.mailbox("local"), 1)
        (stopped,) = await world.some(world.topics.quarantine, 1)
    assert stopped.envelope.content.topic == world.topics.content_kept
    assert (await world.content.read(stopped.envelope.content, WAIT_S)).whole() == body.whole()


async def test_without_a_reason_nothing_is_stopped(world: Any, running: Any) -> None:
    await world.put(world.topics.accepted, world.envelope("bob@a.example", tags=("dnsbl: x",)), MESSAGE)
    async with running(world.router()):
        (item,) = await world.some(world.topics.mailbox("local"), 1)
    assert item.envelope.tags == ("dnsbl: x",)
    assert [read_item(record) for record in await world.all(world.topics.quarantine)] == []
