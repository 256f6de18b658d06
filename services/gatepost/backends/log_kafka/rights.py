"""Which of the rights that a service needs the cluster does not give it: found at the start, not by late mail."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from aiokafka.errors import GroupAuthorizationFailedError

from gatepost.backends.log_kafka.connection import Connection
from gatepost.backends.log_kafka.facts import group_allows, topic_facts
from gatepost.core.rights import Right

# Kafka's numbers of operations (AclOperation).
_NUMBERS: Final = {"READ": 3, "WRITE": 4, "DELETE": 6, "DESCRIBE": 8, "DESCRIBE_CONFIGS": 10}
_TOPIC_DENIED: Final = 29
_GROUP_DENIED: Final = 30


async def missing(connection: Connection, needed: Iterable[Right]) -> Sequence[Right]:
    """Return the rights that are missing, in order; topics that do not exist are passed over. Raises KafkaError."""
    needed = sorted(needed)
    lacking = []
    facts = await topic_facts(connection, sorted({right.name for right in needed if right.kind == "topic"}))
    groups = {right.name: await _group(connection, right.name) for right in needed if right.kind == "group"}
    for right in needed:
        if right.kind == "group":
            allowed = groups[right.name]
        else:
            there = facts.get(right.name)
            denied = there is not None and there.error == _TOPIC_DENIED
            allowed = 0 if denied else there.allowed if there is not None and not there.error else None
        if allowed is not None and not allowed >> _NUMBERS[right.operation] & 1:
            lacking.append(right)
    return lacking


async def _group(connection: Connection, group: str) -> int | None:
    try:
        code, allowed = await group_allows(connection, group)
    except GroupAuthorizationFailedError:
        return 0
    return 0 if code == _GROUP_DENIED else allowed
