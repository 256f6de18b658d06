"""Real brokers: records survive kills, one node of three may go, and access rules hold."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAuthorizationFailedError

from testbed.kafka import Kafka, Operation, Resource

pytestmark = pytest.mark.servers

TOPIC = "mail"


@asynccontextmanager
async def producer(bootstrap: str, **settings: Any) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", **settings)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


async def make_topic(kafka: Kafka, name: str = TOPIC) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(name, 1, len(kafka.nodes))])
        assert [error[1] for error in answer.topic_errors] == [0]
    finally:
        await admin.close()


async def values(kafka: Kafka) -> list[bytes]:
    """All records of the topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partition = TopicPartition(TOPIC, 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        found: list[bytes] = []
        while await consumer.position(partition) < end:
            batch = await consumer.getmany(timeout_ms=1000)
            found += [record.value for records in batch.values() for record in records]
        return found
    finally:
        await consumer.stop()


@pytest.fixture
def kafka(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Kafka]:
    with Kafka(tmp_path, **request.param) as broker:
        yield broker


@pytest.mark.parametrize("kafka", [{"nodes": 1, "properties": {"log.flush.interval.messages": "1"}}], indirect=True)
async def test_one_broker_keeps_its_records_over_a_kill(kafka: Kafka) -> None:
    await make_topic(kafka)
    async with producer(kafka.bootstrap) as client:
        await client.send_and_wait(TOPIC, b"one")
        kafka.nodes[0].kill9()
        kafka.nodes[0].start()
        await client.send_and_wait(TOPIC, b"two")
    assert await values(kafka) == [b"one", b"two"]


@pytest.mark.parametrize("kafka", [{"nodes": 3}], indirect=True)
async def test_three_brokers_go_on_without_one(kafka: Kafka) -> None:
    await make_topic(kafka)
    assert [node.known_brokers() for node in kafka.nodes] == [{1, 2, 3}] * 3
    async with producer(kafka.bootstrap, enable_idempotence=True) as client:
        await client.send_and_wait(TOPIC, b"one")
        kafka.nodes[0].kill9()
        await client.send_and_wait(TOPIC, b"two")
        kafka.nodes[0].start()
        await client.send_and_wait(TOPIC, b"three")
    assert await values(kafka) == [b"one", b"two", b"three"]


@pytest.mark.parametrize("kafka", [{"users": {"edge": "edge-secret"}}], indirect=True)
async def test_a_user_may_only_do_what_is_allowed(kafka: Kafka) -> None:
    await make_topic(kafka)
    await make_topic(kafka, "other")
    kafka.allow("edge", Operation.WRITE, Resource.TOPIC, TOPIC)
    login = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "edge",
        "sasl_plain_password": "edge-secret",
    }
    async with producer(kafka.sasl_bootstrap, **login) as client:
        await client.send_and_wait(TOPIC, b"one")
        with pytest.raises(TopicAuthorizationFailedError):
            await client.send_and_wait("other", b"two")
