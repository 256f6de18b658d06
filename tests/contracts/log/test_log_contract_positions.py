"""Setting a group's position from outside, and finding a place by its time: the same on every log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from gatepost.core.completion import Commit
from gatepost.core.ports.log import Consumer, Entry, Log, Record

LIMIT = 30.0

Topic = Callable[..., Awaitable[str]]
Take = Callable[[Any, int], Awaitable[list[Record]]]
Start = Callable[..., Awaitable[Consumer]]


async def test_a_group_reads_on_where_it_is_told(log: Log, topic: Topic, take: Take, consumers: Start) -> None:
    name = await topic()
    for number in range(5):
        await log.append(Entry(name, b"%d" % number, partition=0), LIMIT)
    await log.save_commits(name, f"group.{name}", {0: Commit(3)})
    assert await log.committed(name, f"group.{name}") == {0: 3}
    consumer = await consumers(log, name)
    assert [record.offset for record in await take(consumer, 2)] == [3, 4]


async def test_the_first_record_since_a_time(log: Log, topic: Topic) -> None:
    name = await topic(partitions=2)
    assert await log.first_since(name, 1, 0) == 0
    for number in range(3):
        await log.append(Entry(name, b"%d" % number, partition=1), LIMIT)
    (last,) = await log.read(name, 1, [2], LIMIT)
    assert await log.first_since(name, 1, 0) == 0
    assert await log.first_since(name, 1, last.timestamp_ms) <= 2
    assert await log.first_since(name, 1, last.timestamp_ms + 1) == 3
    await log.trim(name, 1, 2)
    assert await log.first_since(name, 1, 0) == 2
