"""Bodies in transit go when nothing unfinished refers to them, and never before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from gatepost.backends import content_stream
from gatepost.backends.partitioning import partition_of
from gatepost.core.envelope import ContentRef
from gatepost.core.memory_body import MemoryBody
from gatepost.core.ports.log import Consumer, LogGap, LogUnavailable, Record
from gatepost.core.records import work_entry
from gatepost.telemetry import metrics
from gatepost.work import content_trimming
from gatepost.work.backlog import all_queues
from gatepost.work.content_trimming import ContentTrimmer

WAIT_S = 10.0
STORES = ("local", "dovecot")
LATER_MS = 2 * 86_400_000


class Bodies:
    """Bodies of one small piece each, all in partition 0 of transit, in order; and the trimmer."""

    def __init__(self, world: Any) -> None:
        self.world, self.topic = world, world.topics.content_transit
        self.references: list[ContentRef] = []

    async def write(self, count: int) -> None:
        for number in range(count):
            reference = await self.world.content.write(self._name(), MemoryBody(b"body %d" % number), WAIT_S)
            self.references.append(reference)

    def _name(self) -> str:
        """An id whose hash puts the first piece into partition 0."""
        return next(name for number in range(99) if partition_of((name := f"id{number}").encode(), 2) == 0)

    async def refer(self, topic: str, number: int) -> None:
        envelope = self.world.envelope("x@b.example", content=self.references[number])
        await self.world.log.append(work_entry(topic, envelope, b"", None, b"one key"), WAIT_S)

    async def left(self) -> list[int]:
        """The numbers of the bodies that are still there."""
        there = (await self.world.log.ends(self.topic))[0]
        return [number for number, one in enumerate(self.references) if one.offsets[0] in there]

    def trimmer(self, **more: Any) -> ContentTrimmer:
        """As if it looked two days later: the memory log stamps with the real time."""
        return ContentTrimmer(
            self.world.log,
            self.world.topics,
            STORES,
            lambda: True,
            lambda: int(time.time() * 1000) + LATER_MS,
            **more,
        )

    async def consumer(self, topic: str) -> Consumer:
        group = next(queue.group for queue in all_queues(self.world.topics, STORES) if queue.topic == topic)
        consumer: Consumer = self.world.log.consumer(topic, group, window=100)
        await consumer.start()
        return consumer


@pytest.fixture
async def bodies(world: Any) -> Bodies:
    made = Bodies(world)
    await made.write(6)
    return made


async def take(consumer: Consumer, count: int) -> Sequence[Record]:
    records: list[Record] = []
    while len(records) < count:
        records += await consumer.fetch(WAIT_S)
    return records


async def test_what_nothing_refers_to_goes(bodies: Bodies) -> None:
    await bodies.trimmer().look()
    assert await bodies.left() == []
    assert metrics.CONTENT_PIECES.current()[()] == 0


@pytest.mark.parametrize("where", ["accepted", "relay", "mailbox.local", "mailbox.dovecot", "retry.1m", "retry.4h"])
async def test_each_topic_keeps_what_its_unfinished_records_refer_to(
    bodies: Bodies, world: Any, where: str
) -> None:
    """Fails when a topic is left out of the look. A group that has never committed has everything before it."""
    await bodies.refer(f"{world.topics.prefix}{where}", 3)
    await bodies.trimmer().look()
    assert await bodies.left() == [3, 4, 5]


async def test_finished_records_keep_nothing_wherever_they_lie(bodies: Bodies, world: Any) -> None:
    """Records finish out of order: those above the position that the commit says are finished do not count."""
    for number in (4, 0, 5, 1, 3):
        await bodies.refer(world.topics.relay, number)
    consumer = await bodies.consumer(world.topics.relay)
    records = await take(consumer, 5)
    for place in (1, 3):
        consumer.finish(records[place])
    await consumer.commit()
    await bodies.trimmer().look()
    assert await bodies.left() == [3, 4, 5]
    for place in (0, 2, 4):
        consumer.finish(records[place])
    await consumer.commit()
    await bodies.trimmer().look()
    assert await bodies.left() == []
    await consumer.close()


async def test_new_bodies_stay(bodies: Bodies, world: Any) -> None:
    """A body is written before the record that refers to it. Fails without the margin."""
    await bodies.trimmer(margin_s=3 * 86_400.0).look()
    assert await bodies.left() == [0, 1, 2, 3, 4, 5]


async def test_a_long_backlog_is_left_to_the_retention(bodies: Bodies, world: Any) -> None:
    for number in range(6):
        await bodies.refer(world.topics.relay, number)
    before = metrics.CONTENT_TRIMS.values.get(("backlog",), 0)
    await bodies.trimmer(most=5).look()
    assert await bodies.left() == [0, 1, 2, 3, 4, 5]
    assert metrics.CONTENT_TRIMS.values[("backlog",)] == before + 1


async def test_a_message_that_moves_while_it_is_looked_for_is_found(bodies: Bodies, world: Any) -> None:
    """From a tier back into `relay`, which was read before: fails when commits are read beside each topic."""
    await bodies.refer(world.topics.retry("1h"), 2)
    waiting = await bodies.consumer(world.topics.retry("1h"))
    (record,) = await take(waiting, 1)
    moved = asyncio.Event()

    class Moves:
        """When `relay` has been read for the first time, the copy falls due."""

        def __getattr__(self, name: str) -> Any:
            return getattr(world.log, name)

        async def ends(self, topic: str) -> Any:
            found = await world.log.ends(topic)
            if topic == world.topics.relay and not moved.is_set():
                moved.set()
                await bodies.refer(world.topics.relay, 2)
                waiting.finish(record)
                await waiting.commit()
            return found

    trimmer = bodies.trimmer()
    trimmer._log = Moves()  # type: ignore[assignment]
    await trimmer.look()
    assert moved.is_set()
    assert await bodies.left() == [2, 3, 4, 5]
    await waiting.close()


@pytest.mark.parametrize("fault", ["away", "gap"])
async def test_when_it_cannot_look_nothing_goes(bodies: Bodies, world: Any, fault: str) -> None:
    if fault == "gap":
        await bodies.refer(world.topics.accepted, 1)
        real = world.log.read

        async def read(topic: str, *more: Any) -> Any:
            if topic == world.topics.accepted:
                raise LogGap("trimmed meanwhile")
            return await real(topic, *more)

        world.log.read = read
    else:
        world.log.go_away()
    await bodies.trimmer().look()
    world.log.come_back()
    assert await bodies.left() == [0, 1, 2, 3, 4, 5]


async def test_a_group_behind_a_gap_keeps_everything(bodies: Bodies, world: Any) -> None:
    """Its position is below what is there: what it missed is unknown until a person has looked."""
    await bodies.refer(world.topics.relay, 0)
    await bodies.refer(world.topics.relay, 1)
    consumer = await bodies.consumer(world.topics.relay)
    (first, _) = await take(consumer, 2)
    await consumer.commit()
    await consumer.close()
    await world.log.trim(world.topics.relay, first.partition, first.offset + 1)
    await bodies.trimmer().look()
    assert await bodies.left() == [0, 1, 2, 3, 4, 5]


async def test_only_the_one_whose_turn_it_is_looks(
    bodies: Bodies, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_trimming, "FIRST_S", 0.01)
    monkeypatch.setattr(content_trimming, "EVERY_S", 0.01)
    asked = 0
    ours = False

    def answer() -> bool:
        nonlocal asked
        asked += 1
        return ours

    trimmer = bodies.trimmer()
    trimmer._ours = answer
    task = asyncio.create_task(trimmer.run())
    async with asyncio.timeout(WAIT_S):
        while asked < 5:
            await asyncio.sleep(0.01)
        assert await bodies.left() == [0, 1, 2, 3, 4, 5]
        ours = True
        while await bodies.left():
            await asyncio.sleep(0.01)
        trimmer.stop()
        await task


async def test_a_body_that_arrives_for_too_long_is_refused(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first pieces could be trimmed before a record refers to it: then 250 would be for a lost message."""
    stream = world.content.open("slow", WAIT_S, lambda: None)
    stream.append(b"first")
    monkeypatch.setattr(content_stream, "OLDEST_SECONDS", -1.0)
    stream.append(b"last")
    with pytest.raises(LogUnavailable, match="took so long"):
        await stream.finish(9, "")
    assert content_trimming.MARGIN_S >= 2 * 12 * 3600
