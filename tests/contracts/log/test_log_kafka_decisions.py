"""Which settings of a topic are taken, and which are named with the value to set: one table, on a real broker."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from gatepost.backends.log_kafka import KafkaLog
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.ports.log import Cleanup, LogMisconfigured, TopicSpec
from testbed.kafka import Kafka

pytestmark = pytest.mark.servers
DAY = 86_400_000

# What a right topic of each kind has; the table changes one thing at a time.
RIGHT = {
    Cleanup.TRIM: {"cleanup.policy": "delete", "retention.ms": "-1"},
    Cleanup.EXPIRE: {"cleanup.policy": "delete", "retention.ms": str(DAY)},
    Cleanup.COMPACT: {"cleanup.policy": "compact"},
    Cleanup.COMPACT_EXPIRE: {"cleanup.policy": "compact,delete", "retention.ms": str(DAY)},
}
EVERY = tuple(RIGHT)
TIMED = (Cleanup.TRIM, Cleanup.EXPIRE, Cleanup.COMPACT_EXPIRE)

# Kinds of topics, setting, value, and what it must be said to be set to (None: it is taken).
TABLE = [
    (TIMED, "message.timestamp.type", "CreateTime", "LogAppendTime"),
    (EVERY, "min.insync.replicas", "1", None),
    (EVERY, "min.insync.replicas", "2", None),
    (EVERY, "unclean.leader.election.enable", "true", "false"),
    (EVERY, "unclean.leader.election.enable", "false", None),
    (EVERY, "max.message.bytes", "1048587", "1048588"),
    (EVERY, "max.message.bytes", "1048588", None),
    (EVERY, "max.message.bytes", "20000000", None),
    (TIMED, "retention.bytes", "1000000000000", "-1"),
    (TIMED, "retention.bytes", "-1", None),
    ((Cleanup.COMPACT,), "retention.bytes", "1000", None),
    ((Cleanup.COMPACT,), "retention.ms", "1000", None),
    ((Cleanup.TRIM,), "retention.ms", str(100 * 365 * DAY), "-1"),
    ((Cleanup.EXPIRE, Cleanup.COMPACT_EXPIRE), "retention.ms", str(DAY - 1), str(DAY)),
    ((Cleanup.EXPIRE, Cleanup.COMPACT_EXPIRE), "retention.ms", str(DAY + 1), None),
    ((Cleanup.EXPIRE, Cleanup.COMPACT_EXPIRE), "retention.ms", "-1", None),
    ((Cleanup.TRIM, Cleanup.EXPIRE), "cleanup.policy", "compact", "delete"),
    ((Cleanup.TRIM, Cleanup.EXPIRE), "cleanup.policy", "compact,delete", "delete"),
    ((Cleanup.COMPACT,), "cleanup.policy", "delete", "compact"),
    ((Cleanup.COMPACT,), "cleanup.policy", "compact,delete", "compact"),
    ((Cleanup.COMPACT_EXPIRE,), "cleanup.policy", "compact", "compact,delete"),
    ((Cleanup.COMPACT_EXPIRE,), "cleanup.policy", "delete,compact", None),
    # Nothing that a guarantee hangs on.
    (EVERY, "segment.bytes", "104857600", None),
    (EVERY, "compression.type", "zstd", None),
    ((Cleanup.COMPACT,), "message.timestamp.type", "CreateTime", None),
]
CASES = [(kind, *row[1:]) for row in TABLE for kind in row[0]]


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"table.{uuid.uuid4().hex[:8]}."


@pytest.fixture
async def admin(broker: Kafka) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await client.start()
    yield client
    await client.close()


async def test_each_setting_is_taken_or_named(broker: Kafka, admin: AIOKafkaAdminClient, prefix: str) -> None:
    """All topics of the table at once: each wrong one is named with its value and the right one, no other is."""
    names = [f"{prefix}{number}" for number in range(len(CASES))]
    await admin.create_topics(
        [
            NewTopic(
                name, 1, 1, topic_configs={**RIGHT[kind], "message.timestamp.type": "LogAppendTime", key: value}
            )
            for name, (kind, key, value, _) in zip(names, CASES, strict=True)
        ]
    )
    specs = [TopicSpec(name, kind, 1, DAY) for name, (kind, *_) in zip(names, CASES, strict=True)]
    servers = tuple(broker.bootstrap.split(","))
    log = KafkaLog(KafkaSettings(servers, replication_factor=1, min_insync_replicas=1), client_id="test")
    await log.start()
    with pytest.raises(LogMisconfigured) as caught:
        await log.ensure_topics(specs)
    await log.close()
    said = set(str(caught.value).split("; "))
    wanted = {
        f"{name} has {key}={value}, set it to {want}"
        for name, (_, key, value, want) in zip(names, CASES, strict=True)
        if want is not None
    }
    assert said == wanted


async def test_replicas_and_partitions(broker: Kafka, admin: AIOKafkaAdminClient, prefix: str) -> None:
    """Where three replicas are wanted; a broker alone has one. More partitions than wanted are taken."""
    few, many = f"{prefix}few", f"{prefix}many"
    settings = RIGHT[Cleanup.TRIM]
    await admin.create_topics(
        [NewTopic(few, 1, 1, topic_configs=settings), NewTopic(many, 5, 1, topic_configs=settings)]
    )
    log = KafkaLog(KafkaSettings(tuple(broker.bootstrap.split(","))), client_id="test")
    await log.start()
    with pytest.raises(LogMisconfigured) as caught:
        await log.ensure_topics([TopicSpec(few, Cleanup.TRIM, 3), TopicSpec(many, Cleanup.TRIM, 3)])
    await log.close()
    text = str(caught.value)
    assert f"{few} has 1 partitions, must have 3 (kafka-topics --alter --partitions)" in text
    for name in (few, many):
        assert f"{name} has replication factor 1, must have 3" in text
        assert f"{name} has min.insync.replicas=1, set it to 2" in text
    assert f"{many} has 5 partitions" not in text
