"""Reading records by their offsets, without a group: each run of offsets by its own fetch requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from aiokafka.errors import KafkaError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from gatepost.backends.log_kafka.connection import Connection
from gatepost.backends.log_kafka.disbelief import BACKOFF_SECONDS, Disbelief
from gatepost.backends.log_kafka.ends import ends
from gatepost.core.ports.log import Headers, LogGap, LogUnavailable, Record

# The broker gives at least one batch, however large; then as much as it is asked for, more each time: a single
# small record costs little, a large body few requests.
_FIRST_BYTES: Final = 64 * 1024
_MOST_BYTES: Final = 4 * 1024 * 1024


async def read(
    connection: Connection, topic: str, partition: int, offsets: Sequence[int], limit: float
) -> Sequence[Record]:
    """Do what Log.read says."""
    place = TopicPartition(topic, partition)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    found: dict[int, Record] = {}
    disbelief = Disbelief(connection)
    for first, last in _runs(offsets):
        offset, size = first, _FIRST_BYTES
        while offset <= last:
            fetch = partial(_fetch, connection, place, offset, size)
            remaining = max(deadline - loop.time(), 0.001)
            records = await connection.call(f"reading {topic}/{partition}", remaining, fetch)
            if not records:
                # A new leader, too, may know for a moment only that it has a record, not yet that it may show it.
                if disbelief.lacking(place):
                    raise _gap(place, offset)
                if loop.time() + BACKOFF_SECONDS > deadline:
                    raise LogUnavailable(f"{topic}/{partition}: its leader does not have offset {offset} yet")
                await asyncio.sleep(BACKOFF_SECONDS)
                continue
            disbelief.found(place)
            if records[0].offset > last:
                raise _gap(place, offset)
            found.update((record.offset, record) for record in records)
            offset = records[-1].offset + 1
            size = min(size * 8, _MOST_BYTES)
    for wanted in offsets:
        if wanted not in found:
            raise _gap(place, wanted)
    return [found[wanted] for wanted in offsets]


def _runs(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Give the first and last offset of each run without a hole."""
    first = last = -1
    for offset in sorted(set(offsets)):
        if first >= 0 and offset == last + 1:
            last = offset
            continue
        if first >= 0:
            yield first, last
        first = last = offset
    if first >= 0:
        yield first, last


async def _fetch(connection: Connection, place: TopicPartition, offset: int, most: int) -> list[Record]:
    """Fetch once from `offset` on; empty at the end of the log and behind it. Raises LogGap, KafkaError."""
    leader = await connection.leader(place)
    request = FetchRequest(0, 1, most, 0, [(place.topic, [(place.partition, offset, most)])])
    answer = await connection.client.send(leader, request)
    for _, partitions in answer.topics:
        for _, code, _, *rest in partitions:
            error = for_code(code)
            if error is OffsetOutOfRangeError:
                held = (await ends(connection, place.topic, [place.partition]))[place.partition]
                if offset < held.start:
                    raise _gap(place, offset)
                return []
            if code:
                raise error(f"{place.topic}/{place.partition}")
            return list(_records(place, offset, rest[-1]))
    raise KafkaError(f"the answer says nothing of {place}")


def _records(place: TopicPartition, offset: int, data: bytes) -> Iterator[Record]:
    batches = MemoryRecords(data)
    while batches.has_next():
        batch = batches.next_batch()
        if not batch.validate_crc():
            raise KafkaError(f"a batch of {place} at or after {offset} is damaged")
        if batch.is_control_batch:
            continue
        for record in batch:
            if record.offset >= offset:
                yield to_record(place.topic, place.partition, record)


def to_record(topic: str, partition: int, record: Any) -> Record:
    """Return a record of aiokafka's as ours; of what it is depends on who read it."""
    headers: Headers = tuple(record.headers)
    return Record(
        topic=topic,
        partition=partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key,
        value=record.value or b"",
        headers=headers,
    )


def _gap(place: TopicPartition, offset: int) -> LogGap:
    return LogGap(f"{place.topic}/{place.partition}: no record at offset {offset}")
