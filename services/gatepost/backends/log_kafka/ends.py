"""Where the partitions of a topic begin and end, asked of their leaders (ListOffsets), without a consumer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.structs import TopicPartition

from gatepost.backends.log_kafka.connection import Connection

_FIRST: Final = -2
_BEHIND_THE_LAST: Final = -1


async def ends(connection: Connection, topic: str, numbers: Iterable[int]) -> Mapping[int, range]:
    """Return the range of offsets of each partition. Raises KafkaError."""
    by_leader: dict[int, list[int]] = {}
    for number in numbers:
        by_leader.setdefault(await connection.leader(TopicPartition(topic, number)), []).append(number)
    found: dict[int, range] = {}
    for leader, led in by_leader.items():
        starts = await _ask(connection, leader, topic, led, _FIRST)
        stops = await _ask(connection, leader, topic, led, _BEHIND_THE_LAST)
        # The second answer is newer: a trim in between can only move the start.
        found.update({number: range(min(starts[number], stops[number]), stops[number]) for number in led})
    return found


async def first_since(connection: Connection, topic: str, partition: int, since_ms: int) -> int:
    """Return the offset of the first record appended at or after a time, or the end. Raises KafkaError."""
    leader = await connection.leader(TopicPartition(topic, partition))
    found = (await _ask(connection, leader, topic, [partition], since_ms))[partition]
    if found >= 0:
        return found
    return (await _ask(connection, leader, topic, [partition], _BEHIND_THE_LAST))[partition]


async def _ask(connection: Connection, leader: int, topic: str, numbers: list[int], moment: int) -> dict[int, int]:
    request = OffsetRequest(-1, 0, [(topic, [(number, moment) for number in numbers])])
    answer = await connection.client.send(leader, request)
    found: dict[int, int] = {}
    for _, partitions in answer.topics:
        for number, code, _, offset, *_ in partitions:
            if code:
                raise for_code(code)(f"{topic}/{number}")
            found[number] = offset
    if found.keys() != set(numbers):
        raise KafkaError(f"the answer on {topic} is not complete")
    return found
