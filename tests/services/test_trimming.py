"""Finished records go, those of the replay window and unfinished ones stay."""

from __future__ import annotations

from typing import Any

from gatepost.core.ports.log import Entry
from gatepost.work.trimming import Trimmer


async def test_trims_below_what_is_finished_less_the_window(world: Any) -> None:
    topic, group = world.topics.accepted, world.topics.group("router")
    for number in range(50):
        await world.log.append(Entry(topic, b"%d" % number, partition=0), 5)
    consumer = world.log.consumer(topic, group, window=100)
    await consumer.start()
    for record in await consumer.fetch(5):
        if record.offset != 40:
            consumer.finish(record)
    await consumer.commit()
    await Trimmer(world.log, [(topic, group)], window=10).trim()
    assert [record.offset for record in await world.all(topic)] == list(range(30, 50))
    await consumer.close()


async def test_a_log_that_is_away_is_waited_for(world: Any) -> None:
    world.log.go_away()
    await Trimmer(world.log, [(world.topics.accepted, "g")]).trim()
    world.log.come_back()
