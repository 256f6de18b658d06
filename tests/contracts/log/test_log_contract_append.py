"""The log port's contract, appending and reading by offset: over the fake, SQLite and Kafka."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gatepost.backends.body import BodyWriter
from gatepost.backends.content_log import ContentLog
from gatepost.core.envelope import PIECE_SIZE
from gatepost.core.ports.content import ContentDamaged
from gatepost.core.ports.log import (
    Cleanup,
    Entry,
    Log,
    LogGap,
    LogMisconfigured,
    LogUnavailable,
    LogUnknown,
    Position,
    Record,
    TopicSpec,
)

Topic = Callable[..., Awaitable[str]]
Take = Callable[[Any, int], Awaitable[list[Record]]]
LIMIT = 30.0
SHORT = 0.5


async def test_what_was_appended_is_there_after_a_restart(backend: Any, log: Log, topic: Topic) -> None:
    name = await topic()
    position = await log.append(Entry(name, b"value", b"key", (("a", b"1"), ("b", b"\x00\xff"))), LIMIT)
    again = await backend.reopen(log)
    [record] = await again.read(name, position.partition, [position.offset], LIMIT)
    assert (record.topic, record.partition, record.offset) == (name, *position)
    assert (record.value, record.key) == (b"value", b"key")
    assert record.headers == (("a", b"1"), ("b", b"\x00\xff"))
    assert record.header("b") == b"\x00\xff"


async def test_offsets_go_on_after_a_restart(backend: Any, log: Log, topic: Topic) -> None:
    name = await topic()
    assert await log.append(Entry(name, b"0"), LIMIT) == Position(0, 0)
    again = await backend.reopen(log)
    assert await again.append(Entry(name, b"1"), LIMIT) == Position(0, 1)
    await again.trim(name, 0, 2)
    last = await backend.reopen(again)
    assert await last.append(Entry(name, b"2"), LIMIT) == Position(0, 2)


@pytest.mark.parametrize(
    ("value", "key", "headers"),
    [
        (b"", b"key", ()),
        (b"", None, ()),
        (b"value", None, ()),
        (b"value", b"", ()),
        (os.urandom(1000 * 1000), b"large", (("envelope", os.urandom(4000)),)),
        (b"value", b"key", (("same", b"1"), ("same", b""), ("\u00e9", b"2"))),
    ],
    ids=["empty value", "nothing at all", "no key", "empty key", "1 MB", "headers"],
)
async def test_round_trip(log: Log, topic: Topic, value: bytes, key: bytes | None, headers: Any) -> None:
    name = await topic()
    position = await log.append(Entry(name, value, key, headers), LIMIT)
    [record] = await log.read(name, *_place(position), LIMIT)
    assert (record.value, record.key, record.headers) == (value, key, headers)


async def test_a_record_has_the_time_of_its_append(log: Log, topic: Topic) -> None:
    name = await topic()
    first = await log.append(Entry(name, b"1"), LIMIT)
    second = await log.append(Entry(name, b"2"), LIMIT)
    records = await log.read(name, 0, [first.offset, second.offset], LIMIT)
    assert 0 < records[0].timestamp_ms <= records[1].timestamp_ms


async def test_a_key_always_goes_to_the_same_partition(log: Log, topic: Topic) -> None:
    name = await topic(partitions=5)
    keys = [f"key {number}".encode() for number in range(40)]
    first = await log.append_many([Entry(name, b"1", key) for key in keys], LIMIT)
    second = await log.append_many([Entry(name, b"2", key) for key in keys], LIMIT)
    assert [position.partition for position in first] == [position.partition for position in second]
    assert len({position.partition for position in first}) == 5


async def test_entries_without_a_key_are_spread(log: Log, topic: Topic) -> None:
    name = await topic(partitions=4)
    positions = [await log.append(Entry(name, b"value"), LIMIT) for _ in range(200)]
    assert {position.partition for position in positions} == {0, 1, 2, 3}


async def test_a_partition_that_was_asked_for(log: Log, topic: Topic) -> None:
    name = await topic(partitions=3)
    positions = await log.append_many([Entry(name, b"value", b"key", partition=2)] * 3, LIMIT)
    assert sorted(positions) == [(2, 0), (2, 1), (2, 2)]


async def test_a_partition_that_does_not_exist(log: Log, topic: Topic) -> None:
    name = await topic(partitions=3)
    await log.append(Entry(name, b"value"), LIMIT)
    with pytest.raises(LogMisconfigured, match="has 3 partitions"):
        await log.append(Entry(name, b"value", partition=3), LIMIT)


async def test_many_in_flight_each_get_their_own_position(log: Log, topic: Topic) -> None:
    name = await topic(partitions=3)

    async def one(number: int) -> tuple[int, Position]:
        return number, await log.append(Entry(name, str(number).encode()), LIMIT)

    done = await asyncio.gather(*(one(number) for number in range(1000)))
    assert len({position for _, position in done}) == 1000
    for partition in range(3):
        mine = sorted((position.offset, number) for number, position in done if position.partition == partition)
        assert [offset for offset, _ in mine] == list(range(len(mine)))
        records = await log.read(name, partition, [offset for offset, _ in mine], LIMIT)
        assert [int(record.value) for record in records] == [number for _, number in mine]


async def test_more_than_a_batch_at_once_each_at_the_position_that_was_told(log: Log, topic: Topic) -> None:
    """5 MB into one partition: batches are filled, closed and waited for, and every record is where it is said."""
    name = await topic()
    values = [b"%d " % number + bytes(5000) for number in range(1000)]
    positions = await asyncio.gather(*(log.append(Entry(name, value, partition=0), LIMIT) for value in values))
    assert sorted(position.offset for position in positions) == list(range(len(values)))
    records = await log.read(name, 0, [position.offset for position in positions], LIMIT)
    assert [record.value for record in records] == values


async def test_append_many_gives_positions_in_the_order_of_the_entries(log: Log, topic: Topic) -> None:
    name = await topic(partitions=2)
    entries = [Entry(name, str(number).encode()) for number in range(30)]
    for entry, position in zip(entries, await log.append_many(entries, LIMIT), strict=True):
        [record] = await log.read(name, *_place(position), LIMIT)
        assert record.value == entry.value
    assert list(await log.append_many([], LIMIT)) == []


async def test_past_the_limit_the_outcome_is_unknown_and_comes_later(backend: Any, log: Log, topic: Topic) -> None:
    name = await topic()
    await log.append(Entry(name, b"before"), LIMIT)
    await backend.stall(log)
    with pytest.raises(LogUnknown) as caught:
        await log.append(Entry(name, b"in doubt"), SHORT)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(caught.value.outcome, 0.1)
    await backend.restore(log)
    position = await asyncio.wait_for(caught.value.outcome, LIMIT)
    assert position == await caught.value.outcome
    [record] = await log.read(name, *_place(position), LIMIT)
    assert record.value == b"in doubt"


async def test_append_many_past_the_limit(backend: Any, log: Log, topic: Topic) -> None:
    name = await topic()
    await log.append(Entry(name, b"before"), LIMIT)
    await backend.stall(log)
    with pytest.raises(LogUnknown) as caught:
        await log.append_many([Entry(name, b"a"), Entry(name, b"b")], SHORT)
    await backend.restore(log)
    await asyncio.wait_for(caught.value.outcome, LIMIT)
    records = await log.read(name, 0, [1, 2], LIMIT)
    assert sorted(record.value for record in records) == [b"a", b"b"]


async def test_a_cancelled_append_hurts_nobody(backend: Any, log: Log, topic: Topic) -> None:
    name = await topic()
    await log.append(Entry(name, b"before"), LIMIT)
    await backend.stall(log)
    task = asyncio.create_task(log.append(Entry(name, b"cancelled"), LIMIT))
    other = asyncio.create_task(log.append(Entry(name, b"other"), LIMIT))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await backend.restore(log)
    position = await other
    [record] = await log.read(name, *_place(position), LIMIT)
    assert record.value == b"other"


async def test_away_appends_are_refused_and_nothing_is_written(
    backend: Any, log: Log, topic: Topic, take: Take
) -> None:
    name = await topic()
    await log.append(Entry(name, b"before"), LIMIT)
    assert log.available
    await backend.take_away(log)
    assert not log.available
    with pytest.raises(LogUnavailable):
        await log.append(Entry(name, b"refused"), SHORT)
    with pytest.raises(LogUnavailable):
        await log.append_many([Entry(name, b"refused")] * 3, SHORT)
    await backend.restore(log)
    assert log.available
    position = await log.append(Entry(name, b"after"), LIMIT)
    assert position.offset == 1


async def test_a_log_that_is_not_open_refuses(backend: Any) -> None:
    log = backend.new()
    assert not log.available
    with pytest.raises(LogUnavailable):
        await log.append(Entry("topic", b"value"), SHORT)
    await log.close()


async def test_read_gives_the_offsets_asked_for_in_their_order(log: Log, topic: Topic) -> None:
    name = await topic()
    await log.append_many([Entry(name, bytes([number])) for number in range(20)], LIMIT)
    records = await log.read(name, 0, [7, 8, 9, 3, 19, 0], LIMIT)
    assert [record.offset for record in records] == [7, 8, 9, 3, 19, 0]
    assert list(await log.read(name, 0, [], LIMIT)) == []


async def test_reading_what_is_not_there_is_a_gap(log: Log, topic: Topic) -> None:
    name = await topic()
    await log.append_many([Entry(name, b"value")] * 5, LIMIT)
    with pytest.raises(LogGap):
        await log.read(name, 0, [4, 5], LIMIT)
    await log.trim(name, 0, 3)
    with pytest.raises(LogGap):
        await log.read(name, 0, [2, 3], LIMIT)
    assert [record.offset for record in await log.read(name, 0, [3, 4], LIMIT)] == [3, 4]


async def test_a_large_body_in_pieces(backend: Any, log: Log, topic: Topic, tmp_path: Any) -> None:
    name = await topic(Cleanup.EXPIRE, 3, 3_600_000)
    writer = BodyWriter(1024 * 1024, tmp_path)
    piece = os.urandom(1024 * 1024)
    for number in range(24):
        writer.write(bytes([number]) + piece[1:])
    body = writer.finish()
    content = ContentLog(log, name, folder=tmp_path)
    ref = await content.write("ID", body, LIMIT)
    assert (ref.size, len(ref.offsets)) == (24 * 1024 * 1024, -(-24 * 1024 * 1024 // PIECE_SIZE))
    again = await backend.reopen(log)
    other = ContentLog(again, name, folder=tmp_path)
    back = await other.read(ref, LIMIT)
    assert back.sha256 == body.sha256
    swapped = type(ref)(ref.topic, ref.partition, ref.offsets[::-1], ref.size, ref.sha256)
    with pytest.raises(ContentDamaged):
        await other.read(swapped, LIMIT)
    back.close()
    body.close()


async def test_the_instance_id_stays_with_the_log(backend: Any, log: Log, topic: Topic) -> None:
    instance = await log.instance_id()
    assert instance
    again = await backend.reopen(log)
    assert await again.instance_id() == instance


async def test_topics_may_be_ensured_again(log: Log, topic: Topic) -> None:
    name = await topic(partitions=2)
    await log.append(Entry(name, b"value", partition=1), LIMIT)
    await log.ensure_topics([TopicSpec(name, Cleanup.TRIM, 2), TopicSpec(f"{name}.other", Cleanup.TRIM, 1)])
    [record] = await log.read(name, 1, [0], LIMIT)
    assert record.value == b"value"


def _place(position: Position) -> tuple[int, list[int]]:
    return position.partition, [position.offset]
