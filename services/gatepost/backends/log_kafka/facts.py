"""Two questions that aiokafka's own requests do not ask: a topic's id, and what this principal may do.

A topic that is deleted and made anew has the same name and another id (KIP-516, Kafka 2.8): only that tells it
apart when its offsets have come as far as the old one's. Older brokers do not answer; then nothing is known.
"""

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import Any, Final

import msgspec
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.admin import DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    String,
    TaggedFields,
)

from gatepost.backends.log_kafka.connection import Connection

WATCH_SECONDS: Final = 5.0
_ID_BYTES: Final = 16
_UNKNOWN: Final = -(2**31)  # what a broker says that was not asked, or will not tell
_NO_ID: Final = b"\0" * _ID_BYTES


class TopicFacts(msgspec.Struct, frozen=True):
    """What the cluster says of a topic. `error` is Kafka's code; `allowed` has bit n for Kafka's operation n."""

    error: int
    id: str
    allowed: int | None


class _Uuid(AbstractType[bytes]):  # type: ignore[misc]
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(_ID_BYTES)


class _MetadataResponse(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataStruct(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", _Uuid), ("topic", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataStruct]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: Any) -> _MetadataStruct:
        return _MetadataStruct([(_NO_ID, topic, {}) for topic in self._topics], False, False, True, {})


class _DescribeGroupsStruct(RequestStruct):  # type: ignore[misc]
    """aiokafka has this version, too, but reads its answer as an older one."""

    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = DescribeGroupsResponse_v3
    SCHEMA = Schema(("groups", Array(String("utf-8"))), ("include_authorized_operations", Boolean))


class _DescribeGroupsRequest(Request[_DescribeGroupsStruct]):  # type: ignore[misc]
    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: Any) -> _DescribeGroupsStruct:
        return _DescribeGroupsStruct([self._group], True)


async def topic_facts(connection: Connection, topics: list[str]) -> dict[str, TopicFacts]:
    """Ask for these topics; nothing of those that an old broker cannot tell of. Raises KafkaError."""
    try:
        answer = await connection.client.send(connection.client.get_random_node(), _MetadataRequest(topics))
    except (IncompatibleBrokerVersion, NotImplementedError):
        return {}
    found = {}
    for code, name, topic_id, _, _, allowed, _ in answer.topics:
        known = topic_id != _NO_ID
        found[name] = TopicFacts(code, topic_id.hex() if known else "", None if allowed == _UNKNOWN else allowed)
    return found


class TopicWatch:
    """Remembers a topic's id, to notice that the topic was deleted and made anew."""

    def __init__(self, connection: Connection, topic: str) -> None:
        self._connection, self._topic = connection, topic
        self._id = ""
        self._next = 0.0

    async def is_another(self, limit: float) -> bool:
        """Whether the topic is another one than at the last call; at most one question in WATCH_SECONDS.

        Raises LogUnavailable. A topic that is not there at the moment is not another one yet.
        """
        now = asyncio.get_running_loop().time()
        if now < self._next:
            return False
        found = await self._connection.call(
            f"looking at {self._topic}", limit, lambda: topic_facts(self._connection, [self._topic])
        )
        self._next = now + WATCH_SECONDS
        there = found.get(self._topic)
        if there is None or there.error or not there.id:
            return False
        before, self._id = self._id, there.id
        return before not in ("", self._id)


async def group_allows(connection: Connection, group: str) -> tuple[int, int | None]:
    """Return Kafka's error code and what this principal may do with a group (None: not told). Raises KafkaError."""
    coordinator = await connection.admin.find_coordinator(group)
    try:
        answer = await connection.client.send(coordinator, _DescribeGroupsRequest(group))
    except (IncompatibleBrokerVersion, NotImplementedError):
        return 0, None
    code, *_, allowed = answer.groups[0]
    return code, None if allowed == _UNKNOWN else allowed
