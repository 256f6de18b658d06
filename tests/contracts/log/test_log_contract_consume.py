"""The log port's contract, groups and followers: over the fake, SQLite and Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gatepost.core.ports.log import Cleanup, Consumer, Entry, Log, LogGap, LogMisconfigured, Record

Topic = Callable[..., Awaitable[str]]
Take = Callable[[Any, int], Awaitable[list[Record]]]
Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
Start = Callable[..., Awaitable[Consumer]]
LIMIT = 30.0


async def fill(log: Log, topic: str, count: int, partition: int = 0) -> None:
    await log.append_many([Entry(topic, str(n).encode(), partition=partition) for n in range(count)], LIMIT)


def offsets(records: list[Record]) -> list[int]:
    return [record.offset for record in records]


async def test_records_come_once_in_order(log: Log, topic: Topic, take: Take, consumers: Start) -> None:
    name = await topic()
    consumer = await consumers(log, name)
    for number in range(50):
        await log.append(Entry(name, str(number).encode()), LIMIT)
    records = await take(consumer, 50)
    assert [int(record.value) for record in records] == list(range(50))
    assert list(await consumer.fetch(0.3)) == []


async def test_a_new_group_begins_at_the_start(log: Log, topic: Topic, take: Take, consumers: Start) -> None:
    name = await topic()
    await fill(log, name, 5)
    await log.trim(name, 0, 2)
    assert offsets(await take(await consumers(log, name), 3)) == [2, 3, 4]


async def test_no_such_topic(log: Log) -> None:
    consumer = log.consumer("test.missing", "group", window=1)
    with pytest.raises(LogMisconfigured, match=r"test\.missing"):
        await consumer.start()
    await consumer.close()
    follower = log.follower("test.missing")
    with pytest.raises(LogMisconfigured, match=r"test\.missing"):
        await follower.start()
    await follower.close()


async def test_fetch_waits_for_a_record(log: Log, topic: Topic, consumers: Start) -> None:
    name = await topic()
    consumer = await consumers(log, name)
    waiting = asyncio.create_task(consumer.fetch(LIMIT))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await log.append(Entry(name, b"value"), LIMIT)
    assert offsets(list(await waiting)) == [0]


async def test_only_unfinished_records_come_again(
    backend: Any, log: Log, topic: Topic, take: Take, consumers: Start
) -> None:
    name = await topic()
    await fill(log, name, 6)
    consumer = await consumers(log, name)
    for record in await take(consumer, 6):
        if record.offset in (1, 2, 4):
            consumer.finish(record)
    await consumer.commit()
    assert (await log.committed(name, f"group.{name}"))[0] == 0
    await consumer.close()
    again = await backend.reopen(log)
    await again.append(Entry(name, b"new"), LIMIT)
    second = await consumers(again, name)
    records = await take(second, 4)
    assert offsets(records) == [0, 3, 5, 6]
    for record in records:
        second.finish(record)
    await second.commit()
    assert await again.committed(name, f"group.{name}") == {0: 7}


async def test_a_member_that_was_killed_is_taken_over(
    backend: Any, log: Log, topic: Topic, take: Take, consumers: Start
) -> None:
    name = await topic()
    await fill(log, name, 6)
    await backend.killed_member(name, f"group.{name}", 6, [1, 2, 4])
    survivor = log if log in backend.logs and backend.kind != "sqlite" else await backend.open()
    consumer = await consumers(survivor, name)
    assert offsets(await take(consumer, 3)) == [0, 3, 5]


async def test_the_background_commits_what_is_finished(
    log: Log, topic: Topic, take: Take, consumers: Start
) -> None:
    name = await topic()
    await fill(log, name, 3)
    consumer = await consumers(log, name)
    for record in await take(consumer, 3):
        consumer.finish(record)
    async with asyncio.timeout(LIMIT):
        while await log.committed(name, f"group.{name}") != {0: 3}:
            await asyncio.sleep(0.05)


async def test_the_window_limits_what_is_out(log: Log, topic: Topic, take: Take, consumers: Start) -> None:
    name = await topic(partitions=2)
    await fill(log, name, 20, partition=0)
    consumer = await consumers(log, name, window=5)
    records = await take(consumer, 5)
    assert list(await consumer.fetch(0.3)) == []
    await fill(log, name, 2, partition=1)  # another partition has a window of its own
    assert {record.partition for record in await take(consumer, 2)} == {1}
    consumer.finish(records[4])
    consumer.finish(records[2])
    assert offsets(await take(consumer, 2)) == [5, 6]
    assert list(await consumer.fetch(0.3)) == []
    for record in records:
        consumer.finish(record)
    assert offsets(await take(consumer, 3)) == [7, 8, 9]


async def test_two_members_share_and_each_record_has_one_owner(
    log: Log, topic: Topic, take: Take, consumers: Start, eventually: Eventually
) -> None:
    name = await topic(partitions=4)
    first = await consumers(log, name)
    second = await consumers(log, name)

    def shared() -> bool:
        mine = [p for p in range(4) if first.owns(p)]
        other = [p for p in range(4) if second.owns(p)]
        return len(mine) == len(other) == 2 and not set(mine) & set(other)

    await eventually(shared)
    for partition in range(4):
        await fill(log, name, 10, partition)
    one, two = await take(first, 20), await take(second, 20)
    assert len({(record.partition, record.offset) for record in one + two}) == 40
    assert all(first.owns(record.partition) for record in one)


async def test_leaving_hands_over_at_once(
    log: Log, topic: Topic, take: Take, consumers: Start, eventually: Eventually
) -> None:
    name = await topic(partitions=4)
    for partition in range(4):
        await fill(log, name, 3, partition)
    first = await consumers(log, name)
    records = await take(first, 12)
    for record in records[:6]:
        first.finish(record)
    joining = asyncio.create_task(consumers(log, name))
    second = await joining
    await first.close()
    await eventually(lambda: all(second.owns(partition) for partition in range(4)))
    unfinished = {(record.partition, record.offset) for record in records[6:]}
    got = {(record.partition, record.offset) for record in await take(second, 6)}
    assert got == unfinished
    assert not any(first.owns(partition) for partition in range(4))


async def test_what_is_out_is_not_given_again_when_another_member_comes(
    log: Log, topic: Topic, take: Take, consumers: Start, eventually: Eventually
) -> None:
    name = await topic(partitions=2)
    for partition in range(2):
        await fill(log, name, 5, partition)
    first = await consumers(log, name)
    lost: list[frozenset[int]] = []
    first.on_revoked(lost.append)
    records = await take(first, 10)
    second = await consumers(log, name)
    await eventually(lambda: len(lost) == 1 and any(second.owns(p) for p in range(2)))
    [gone] = lost[0]
    kept = 1 - gone
    assert first.owns(kept)
    assert not first.owns(gone)
    # The lost partition's records go to the other member, the kept one's do not come again to anybody.
    assert {record.partition for record in await take(second, 5)} == {gone}
    assert list(await first.fetch(0.3)) == []
    for record in records:
        first.finish(record)
    await first.commit()
    committed = await log.committed(name, f"group.{name}")
    assert committed[kept] == 5
    assert committed.get(gone, 0) == 0


async def test_records_fall_due_in_the_order_of_their_append(
    log: Log, topic: Topic, take: Take, consumers: Start
) -> None:
    """A retry tier: a reader waits for the first record of each partition, and appends to the work topic."""
    tier, work = await topic(partitions=2), await topic()
    for number in range(20):
        await log.append(Entry(tier, str(number).encode(), partition=number % 2), LIMIT)
    reader = await consumers(log, tier, window=1)
    while len(await _all(log, work)) < 20:
        for record in await reader.fetch(1.0):
            await log.append(Entry(work, record.value), LIMIT)
            reader.finish(record)
    numbers = [int(record.value) for record in await _all(log, work)]
    assert [number for number in numbers if number % 2 == 0] == list(range(0, 20, 2))
    assert [number for number in numbers if number % 2] == list(range(1, 20, 2))


async def _all(log: Log, topic: str) -> list[Record]:
    follower = log.follower(topic)
    await follower.start()
    records: list[Record] = []
    while not follower.caught_up:
        records += await follower.fetch(1.0)
    await follower.close()
    return records


async def test_a_gap_below_the_committed_offset_is_an_alarm(
    log: Log, topic: Topic, take: Take, consumers: Start
) -> None:
    name = await topic()
    await fill(log, name, 10)
    consumer = await consumers(log, name)
    records = await take(consumer, 10)
    consumer.finish(records[0])
    await consumer.close()
    await log.trim(name, 0, 5)
    second = await consumers(log, name)
    for _ in range(2):
        with pytest.raises(LogGap, match=name):
            async with asyncio.timeout(LIMIT):
                while True:
                    assert list(await second.fetch(1.0)) == []
    assert (await log.committed(name, f"group.{name}"))[0] == 1


async def test_fetch_survives_an_outage(backend: Any, log: Log, topic: Topic, take: Take, consumers: Start) -> None:
    name = await topic()
    consumer = await consumers(log, name)
    await fill(log, name, 2)
    for record in await take(consumer, 2):
        consumer.finish(record)
    await backend.take_away(log)
    assert list(await consumer.fetch(0.3)) == []
    await backend.restore(log)
    await fill(log, name, 2)
    assert offsets(await take(consumer, 2)) == [2, 3]


async def test_a_follower_reads_everything_and_goes_on(log: Log, topic: Topic, take: Take) -> None:
    name = await topic(partitions=3)
    for partition in range(3):
        await fill(log, name, 5, partition)
    follower = log.follower(name)
    await follower.start()
    assert not follower.caught_up
    records = await take(follower, 15)
    assert follower.caught_up
    for partition in range(3):
        mine = [record.offset for record in records if record.partition == partition]
        assert mine == list(range(5))
    await log.append(Entry(name, b"more", partition=1), LIMIT)
    [record] = await take(follower, 1)
    assert (record.value, record.offset) == (b"more", 5)
    assert list(await follower.fetch(0.2)) == []
    await follower.close()


async def test_a_follower_of_an_empty_topic_has_caught_up(log: Log, topic: Topic) -> None:
    follower = log.follower(await topic(Cleanup.COMPACT))
    await follower.start()
    await follower.fetch(0.1)
    assert follower.caught_up
    await follower.close()


async def test_compacted_topics_are_read_to_the_end(log: Log, topic: Topic) -> None:
    name = await topic(Cleanup.COMPACT, partitions=2)
    for round_number in range(3):
        entries = [Entry(name, f"{n}.{round_number}".encode(), str(n).encode()) for n in range(200)]
        await log.append_many(entries, LIMIT)
    await log.append_many([Entry(name, None, str(n).encode()) for n in range(0, 200, 2)], LIMIT)
    state = {}
    for record in await _all(log, name):
        state[int(record.key or b"")] = record.value
    assert state == {n: b"" if n % 2 == 0 else f"{n}.2".encode() for n in range(200)}


async def test_a_follower_from_a_time_on(log: Log, topic: Topic, take: Take) -> None:
    name = await topic(partitions=2)
    await fill(log, name, 3, partition=0)
    [last] = await log.read(name, 0, [2], LIMIT)
    await asyncio.sleep(0.005)  # the next record's time must differ
    await fill(log, name, 2, partition=0)
    await fill(log, name, 1, partition=1)
    follower = log.follower(name, since_ms=last.timestamp_ms + 1)
    await follower.start()
    records = await take(follower, 3)
    assert sorted((record.partition, record.offset) for record in records) == [(0, 3), (0, 4), (1, 0)]
    assert follower.caught_up
    await follower.close()
    late = log.follower(name, since_ms=last.timestamp_ms + 3_600_000)
    await late.start()
    assert list(await late.fetch(0.2)) == []
    assert late.caught_up
    await log.append(Entry(name, b"new", partition=1), LIMIT)
    [record] = await take(late, 1)
    assert record.offset == 1
    await late.close()


async def test_commits_of_groups_are_apart(log: Log, topic: Topic, take: Take, consumers: Start) -> None:
    name = await topic()
    await fill(log, name, 3)
    one = await consumers(log, name, "one")
    for record in await take(one, 3):
        one.finish(record)
    await one.commit()
    assert await log.committed(name, "one") == {0: 3}
    assert (await log.committed(name, "two")).get(0, 0) == 0
    assert offsets(await take(await consumers(log, name, "two"), 3)) == [0, 1, 2]


async def test_close_commits(log: Log, topic: Topic, take: Take, consumers: Start) -> None:
    name = await topic()
    await fill(log, name, 2)
    consumer = await consumers(log, name)
    for record in await take(consumer, 2):
        consumer.finish(record)
    await consumer.close()
    assert await log.committed(name, f"group.{name}") == {0: 2}
    await consumer.close()


async def test_members_come_and_go_under_load(log: Log, topic: Topic, eventually: Eventually) -> None:
    """Nothing is lost and nothing stays unfinished, whoever has a partition when; finishing is out of order."""
    name = await topic(partitions=4)
    appended = set[tuple[int, int]]()
    done = set[tuple[int, int]]()
    given = 0
    enough, stop = asyncio.Event(), asyncio.Event()

    async def produce() -> None:
        while not enough.is_set():
            entries = [Entry(name, b"value", partition=n % 4) for n in range(20)]
            appended.update(await log.append_many(entries, LIMIT))
            await asyncio.sleep(0.005)

    async def work(joined: asyncio.Event, leave: asyncio.Event) -> None:
        nonlocal given
        consumer = log.consumer(name, "group", window=50)
        await consumer.start()
        joined.set()
        held: list[Record] = []
        while not leave.is_set() and not stop.is_set():
            records = list(await consumer.fetch(0.2))
            given += len(records)
            held += records
            # Keep some back, so that records are unfinished at any moment.
            ready, held = (held[::-1][7:], held[::-1][:7]) if len(held) > 7 else (held, [])
            for record in ready:
                if consumer.owns(record.partition):
                    done.add((record.partition, record.offset))
                    consumer.finish(record)
        await consumer.close()

    producing = asyncio.create_task(produce())
    members = [(asyncio.Event(), asyncio.Event()) for _ in range(4)]
    workers = []
    for index, (joined, leave) in enumerate(members):
        workers.append(asyncio.create_task(work(joined, leave)))
        await joined.wait()
        seen = len(done)
        await eventually(lambda seen=seen: len(done) > seen + 100)  # type: ignore[misc]
        if index:
            members[index - 1][1].set()
    enough.set()
    await producing
    await eventually(lambda: done >= appended)
    stop.set()
    await asyncio.gather(*workers)
    ends = {p: 1 + max(offset for partition, offset in appended if partition == p) for p in range(4)}
    assert await log.committed(name, "group") == ends
    # What comes again is at most what was out when a partition changed hands.
    assert given <= len(appended) + 4 * 4 * 50 * 2


async def test_a_slow_record_does_not_hold_up_the_others(
    log: Log, topic: Topic, take: Take, consumers: Start
) -> None:
    name = await topic()
    consumer = await consumers(log, name, window=3)
    await fill(log, name, 200)
    [slow, *_] = first = await take(consumer, 3)
    for record in first[1:]:
        consumer.finish(record)
    left = 197
    async with asyncio.timeout(LIMIT):
        while left:
            for record in await consumer.fetch(1.0):
                consumer.finish(record)
                left -= 1
    await consumer.commit()
    assert await log.committed(name, f"group.{name}") == {0: 0}
    consumer.finish(slow)
    await consumer.commit()
    assert await log.committed(name, f"group.{name}") == {0: 200}
