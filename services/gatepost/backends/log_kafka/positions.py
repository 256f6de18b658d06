"""Setting a group's positions from outside, as an administrator does: only while the group has no members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiokafka.errors import for_code
from aiokafka.protocol.commit import OffsetCommitRequest

from gatepost.backends.log_kafka.connection import Connection
from gatepost.core.completion import Commit
from gatepost.core.ports.log import LogUnavailable

# UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS: what a group with members answers to a stranger.
_HAS_MEMBERS: Final = (25, 22, 27)


async def save(connection: Connection, topic: str, group: str, commits: Mapping[int, Commit]) -> None:
    """Raises LogUnavailable (the group has members), KafkaError."""
    node = await connection.admin.find_coordinator(group)
    wanted = [(partition, commit.position, commit.metadata) for partition, commit in commits.items()]
    request = OffsetCommitRequest(
        group,
        OffsetCommitRequest.DEFAULT_GENERATION_ID,
        "",
        OffsetCommitRequest.DEFAULT_RETENTION_TIME,
        [(topic, wanted)],
    )
    answer = await connection.client.send(node, request)
    for _, partitions in answer.topics:
        for partition, code in partitions:
            if code in _HAS_MEMBERS:
                raise LogUnavailable(f"the group {group} has members: stop the processes that read {topic} first")
            if code:
                raise for_code(code)(f"{topic}/{partition}")
