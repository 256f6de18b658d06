"""The log port's contract: what a look from outside needs, where partitions end and what a group has finished."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gatepost.core.completion import finished_ranges
from gatepost.core.ports.log import Consumer, Entry, Log, LogMisconfigured, Record

Topic = Callable[..., Awaitable[str]]
Take = Callable[[Any, int], Awaitable[list[Record]]]
Start = Callable[..., Awaitable[Consumer]]
LIMIT = 30.0


async def test_ends_of_each_partition(log: Log, topic: Topic) -> None:
    name = await topic(partitions=2)
    assert await log.ends(name) == {0: range(0), 1: range(0)}
    await log.append_many([Entry(name, b"x", partition=1) for _ in range(5)], LIMIT)
    await log.trim(name, 1, 2)
    ends = await log.ends(name)
    assert (ends[0].start, ends[0].stop) == (0, 0)
    assert (ends[1].start, ends[1].stop) == (2, 5)


async def test_ends_of_no_topic(log: Log) -> None:
    with pytest.raises(LogMisconfigured, match=r"test\.missing"):
        await log.ends("test.missing")


async def test_commits_tell_what_is_finished_above_the_position(
    log: Log, topic: Topic, take: Take, consumers: Start
) -> None:
    name = await topic()
    assert await log.commits(name, "nobody") == {}
    await log.append_many([Entry(name, b"x", partition=0) for _ in range(6)], LIMIT)
    consumer = await consumers(log, name, group="somebody")
    records = await take(consumer, 6)
    for record in records:
        if record.offset not in (1, 4):
            consumer.finish(record)
    await consumer.commit()
    (commit,) = (await log.commits(name, "somebody")).values()
    assert commit.position == 1
    assert [list(run) for run in finished_ranges(commit)] == [[2, 3], [5]]
