"""Stopped mail keeps its body: what lay in content.transit is copied to content.kept, once, in one place."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from gatepost.core.envelope import ENVELOPE_HEADER, ContentRef
from gatepost.core.memory_body import MemoryBody
from gatepost.core.ports.log import Entry, LogUnavailable, Record
from gatepost.core.records import read_item, work_entry
from gatepost.core.stopped import reference_in
from gatepost.work.at_once import WouldWait, at_once

WAIT_S = 10.0
BODY = MemoryBody(b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 60_000)


async def referring(world: Any, **more: Any) -> Record:
    """A record of `relay` whose body lies in transit."""
    reference = await world.content.write("one", BODY, WAIT_S)
    envelope = world.envelope("x@b.example", content=reference, sha256=BODY.sha256, size=BODY.size, **more)
    await world.log.append(work_entry(world.topics.relay, envelope, b"", None, b"site"), WAIT_S)
    return (await world.all(world.topics.relay))[-1]


async def test_a_body_goes_along_into_quarantine_and_outlives_transit(world: Any) -> None:
    record = await referring(world, smtputf8=True)
    entry = await world.quarantine.entry(record, "for the test")
    await world.log.append(entry, WAIT_S)
    for partition, held in (await world.log.ends(world.topics.content_transit)).items():
        await world.log.trim(world.topics.content_transit, partition, held.stop)
    (stopped,) = await world.all(world.topics.quarantine)
    item = read_item(stopped)
    assert item.envelope.content.topic == world.topics.content_kept
    assert (await world.content.read(item.envelope.content, WAIT_S)).whole() == BODY.whole()
    before = read_item(record).envelope
    assert msgspec.structs.replace(item.envelope, content=before.content) == before
    assert stopped.key == b"site"
    assert stopped.header("reason") == b"for the test"


async def test_held_mail_is_kept_in_the_same_way(world: Any) -> None:
    entry = await world.quarantine.entry(await referring(world), "held", topic=world.topics.held)
    assert entry.topic == world.topics.held
    _, reference = reference_in(entry.headers)
    assert reference is not None
    assert reference.topic == world.topics.content_kept


async def test_what_is_kept_already_is_not_copied_again(world: Any) -> None:
    first = await world.quarantine.entry(await referring(world), "one")
    await world.log.append(first, WAIT_S)
    (stopped,) = await world.all(world.topics.quarantine)
    again = await world.quarantine.entry(stopped, "two")
    assert reference_in(again.headers) == reference_in(first.headers)
    assert [value for name, value in again.headers if name == "reason"] == [b"two"]


async def test_an_envelope_of_another_version_takes_its_body_along(world: Any) -> None:
    """Quarantined because it cannot be read here; what it refers to must be there when it can."""
    record = await referring(world)
    fields = msgspec.json.decode(record.header(ENVELOPE_HEADER))
    envelope = msgspec.json.encode({**fields, "v": 7, "novelty": {"a": [1]}})
    newer = msgspec.structs.replace(record, headers=((ENVELOPE_HEADER, envelope),))
    entry = await world.quarantine.entry(newer, "version 7")
    kept = msgspec.json.decode(dict(entry.headers)[ENVELOPE_HEADER])
    assert kept["content"]["topic"] == world.topics.content_kept
    assert {**kept, "content": fields["content"]} == {**fields, "v": 7, "novelty": {"a": [1]}}


@pytest.mark.parametrize("damage", ["trimmed", "damaged"])
async def test_a_body_that_is_gone_is_said_and_the_reference_stays(world: Any, damage: str) -> None:
    record = await referring(world)
    _, reference = reference_in(record.headers)
    assert reference is not None
    if damage == "trimmed":
        await world.log.trim(reference.topic, reference.partition, reference.offsets[0] + 1)
    else:
        wrong = msgspec.structs.replace(read_item(record).envelope, content=_with_wrong_sum(reference))
        record = msgspec.structs.replace(record, headers=work_entry("t", wrong, b"", None).headers)
        _, reference = reference_in(record.headers)
    entry = await world.quarantine.entry(record, "poisoned")
    assert reference_in(entry.headers)[1] == reference
    assert dict(entry.headers)["reason"].startswith(b"poisoned; the body cannot be read back: ")


def _with_wrong_sum(reference: ContentRef) -> ContentRef:
    return msgspec.structs.replace(reference, sha256="0" * 64)


async def test_it_waits_while_the_log_is_away(world: Any) -> None:
    record = await referring(world)
    world.log.go_away()
    with pytest.raises(LogUnavailable):
        await world.quarantine.entry(record, "x")
    world.log.come_back()
    assert (await world.quarantine.entry(record, "x")).topic == world.topics.quarantine


async def test_a_copy_is_never_made_in_a_step_that_may_be_repeated(world: Any) -> None:
    """at_once gives a step up at its first wait. Fails when the copy's first wait comes after it has begun."""
    body = MemoryBody(BODY.whole()[:200_000])  # in memory: reading it waits for nothing
    reference = await world.content.write("small", body, WAIT_S)
    envelope = world.envelope("x@b.example", content=reference)
    record = Record("t", 0, 0, 0, None, b"", work_entry("t", envelope, b"", None).headers)
    with pytest.raises(WouldWait):
        at_once(world.quarantine.entry(record, "x"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert await world.all(world.topics.content_kept) == []
    inline = Record("t", 0, 0, 0, None, b"value")
    assert at_once(world.quarantine.entry(inline, "x")) == Entry(
        world.topics.quarantine, b"value", None, (("reason", b"x"),)
    )
