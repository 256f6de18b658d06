"""What administrators do to a real cluster behind our back: records deleted, topics made anew, another cluster."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.structs import TopicPartition

from gatepost.backends.config_log import ConfigurationPublisher, LogConfiguration
from gatepost.backends.content_log import ContentLog
from gatepost.backends.log_kafka import KafkaLog
from gatepost.backends.log_kafka.facts import WATCH_SECONDS
from gatepost.cli.main import main
from gatepost.core.completion import Commit
from gatepost.core.configuration import SCHEMA_MAJOR, Configuration
from gatepost.core.envelope import Envelope, Recipient
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.memory_body import MemoryBody
from gatepost.core.ports.log import Cleanup, Consumer, Entry, LogGap, LogUnavailable, Record, TopicSpec
from gatepost.core.records import work_entry
from gatepost.core.topics import Topics
from gatepost.work.content_trimming import ContentTrimmer
from testbed.kafka import Kafka

pytestmark = pytest.mark.servers
LIMIT = 30.0
# Noticing takes WATCH_SECONDS; metadata of a topic that was away comes by itself, later.
PATIENCE = 60.0


def settings_for(kafka: Kafka) -> KafkaSettings:
    servers = tuple(kafka.bootstrap.split(","))
    return KafkaSettings(bootstrap_servers=servers, replication_factor=1, min_insync_replicas=1)


@pytest.fixture
async def log(broker: Kafka) -> AsyncIterator[KafkaLog]:
    made = KafkaLog(settings_for(broker), client_id="test")
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def admin(broker: Kafka) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await client.start()
    yield client
    await client.close()


async def take(consumer: Consumer, count: int) -> list[Record]:
    records: list[Record] = []
    async with asyncio.timeout(PATIENCE):
        while len(records) < count:
            records += await consumer.fetch(1.0)
    return records


async def make_anew(admin: AIOKafkaAdminClient, name: str, partitions: int = 1) -> None:
    """Delete a topic and create it again, as soon as the name is free."""
    await admin.delete_topics([name])
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await admin.create_topics([NewTopic(name, partitions, 1)])
            if answer.topic_errors[0][1] == 0:
                return
            await asyncio.sleep(0.1)


async def filled(log: KafkaLog, topic: str, values: Sequence[bytes]) -> None:
    """Append; the producer may have to learn of a topic that was made anew first."""
    for value in values:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await log.append(Entry(topic, value, partition=0), LIMIT)
                    break
                except LogUnavailable:
                    await asyncio.sleep(0.2)


def settings_file(tmp_path: Path, broker: Kafka, prefix: str) -> Path:
    kafka = {"bootstrapServers": broker.bootstrap.split(","), "replicationFactor": 1, "minInsyncReplicas": 1}
    file = tmp_path / "gatepost.yaml"
    state = str(tmp_path / "state")
    file.write_text(json.dumps({"log": {"kafka": kafka, "topicPrefix": prefix}, "state": state}))
    return file


async def command(*words: object) -> int:
    return await asyncio.to_thread(main, [str(word) for word in words])


async def test_records_deleted_behind_a_groups_back(
    log: KafkaLog, admin: AIOKafkaAdminClient, broker: Kafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An alarm with topic, partition, offset and count; skipped only by a person's word, who is told how many."""
    prefix = f"gap.{uuid.uuid4().hex[:8]}."
    topic, group = f"{prefix}accepted", f"{prefix}router"
    await log.ensure_topics([TopicSpec(topic, Cleanup.TRIM, 2)])
    await filled(log, topic, [b"%d" % number for number in range(10)])
    consumer = log.consumer(topic, group, window=3)
    await consumer.start()
    for record in await take(consumer, 3):
        consumer.finish(record)
    await consumer.close()
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(8)})

    second = log.consumer(topic, group, window=100)
    await second.start()
    await log.append(Entry(topic, b"other", partition=1), LIMIT)
    alarms: list[str] = []
    others: list[Record] = []
    async with asyncio.timeout(PATIENCE):
        while not alarms or not others:
            try:
                others += await second.fetch(1.0)
            except LogGap as gap:
                alarms.append(str(gap))
    assert alarms[0] == f"{topic}/0: group {group} is at offset 3, 5 records below 8 are gone"
    assert [record.value for record in others] == [b"other"]

    file = settings_file(tmp_path, broker, prefix)
    words = ("skip-gap", "--topic", topic, "--partition", 0, "--config", file)
    assert await command(*words) == 1
    said = capsys.readouterr().out
    assert f"{topic}/0: the group is at offset 3: it holds 8 to 9. 5 records are gone." in said
    assert "nothing was changed" in said
    assert await command(*words, "--yes") == 3, "a group with members must not be moved"
    assert "has members: stop the processes" in capsys.readouterr().err
    await second.close()
    assert await command(*words, "--yes") == 0
    assert f"The group {group} reads on at offset 8" in capsys.readouterr().out
    assert await command(*words, "--yes") == 1
    assert "nothing is missing" in capsys.readouterr().out
    third = log.consumer(topic, group, window=100)
    await third.start()
    assert [record.offset for record in await take(third, 2) if record.partition == 0] == [8, 9]
    await third.close()


async def test_a_reader_in_the_middle_is_told_as_well(log: KafkaLog, admin: AIOKafkaAdminClient) -> None:
    """The records go while a member is behind: out of range comes from the fetch itself."""
    topic = f"test.{uuid.uuid4().hex[:8]}"
    await log.ensure_topics([TopicSpec(topic, Cleanup.TRIM, 1)])
    await filled(log, topic, [bytes(400_000) for _ in range(12)])
    consumer = log.consumer(topic, topic, window=1)
    await consumer.start()
    (first,) = await take(consumer, 1)
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(-1)})
    consumer.finish(first)
    with pytest.raises(LogGap, match=rf"{topic}/0: group {topic} is at offset \d+, but what is there begins at 12"):
        async with asyncio.timeout(PATIENCE):
            while True:  # what the client has read ahead is given, and is right
                for record in await consumer.fetch(1.0):
                    consumer.finish(record)
    await consumer.close()


async def test_a_position_beyond_the_end_is_an_alarm(
    log: KafkaLog, broker: Kafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a restore of an older state: never silently nothing to read."""
    prefix = f"end.{uuid.uuid4().hex[:8]}."
    topic, group = f"{prefix}relay", f"{prefix}relay"
    await log.ensure_topics([TopicSpec(topic, Cleanup.TRIM, 1)])
    await filled(log, topic, [b"1", b"2"])
    await log.save_commits(topic, group, {0: Commit(40)})
    consumer = log.consumer(topic, group, window=10)
    await consumer.start()
    with pytest.raises(LogGap, match=r"is at offset 40, but what is there begins at 0 and ends before 2"):
        async with asyncio.timeout(PATIENCE):
            while True:
                assert not await consumer.fetch(1.0)
    await consumer.close()
    file = settings_file(tmp_path, broker, prefix)
    assert await command("skip-gap", "--topic", topic, "--partition", 0, "--config", file, "--yes") == 0
    assert "behind the end: it holds 0 to 1; the topic was made anew, or" in capsys.readouterr().out
    again = log.consumer(topic, group, window=10)
    await again.start()
    assert [record.value for record in await take(again, 2)] == [b"1", b"2"]
    await again.close()


async def test_a_topic_that_is_made_anew_is_read_from_its_start(
    log: KafkaLog, admin: AIOKafkaAdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Its offsets begin again, and soon pass the old position. Fails without the topic's id: 3 would be skipped."""
    topic = f"test.{uuid.uuid4().hex[:8]}"
    await log.ensure_topics([TopicSpec(topic, Cleanup.TRIM, 1)])
    await filled(log, topic, [b"old %d" % number for number in range(3)])
    consumer = log.consumer(topic, topic, window=100)
    await consumer.start()
    for record in await take(consumer, 3):
        consumer.finish(record)
    await consumer.commit()
    await make_anew(admin, topic)
    new = [b"new %d" % number for number in range(6)]
    await filled(log, topic, new)
    seen: set[bytes] = set()
    async with asyncio.timeout(PATIENCE):
        while not seen >= set(new):
            try:
                records = await consumer.fetch(1.0)
            except LogGap:
                continue
            seen |= {record.value for record in records}
            for record in records:
                consumer.finish(record)
    await consumer.commit()
    assert await log.committed(topic, topic) == {0: 6}
    await consumer.close()


async def test_a_follower_says_that_its_topic_was_made_anew(log: KafkaLog, admin: AIOKafkaAdminClient) -> None:
    topic = f"test.{uuid.uuid4().hex[:8]}"
    await log.ensure_topics([TopicSpec(topic, Cleanup.EXPIRE, 1, 3_600_000)])
    await filled(log, topic, [b"old"])
    follower = log.follower(topic)
    await follower.start()
    while not await follower.fetch(1.0):
        pass
    await make_anew(admin, topic)
    await filled(log, topic, [b"1", b"2", b"3"])
    with pytest.raises(LogGap, match="made anew"):
        async with asyncio.timeout(WATCH_SECONDS + PATIENCE):
            while True:
                await follower.fetch(1.0)
    await follower.close()
    again = log.follower(topic)
    await again.start()
    found: list[Record] = []
    while len(found) < 3:
        found += await again.fetch(1.0)
    await again.close()


async def test_edges_run_on_when_the_config_topic_is_made_anew_and_take_what_comes(
    log: KafkaLog, admin: AIOKafkaAdminClient, tmp_path: Path
) -> None:
    """A lower epoch than before must not be passed over for heads of the old topic."""
    topics = Topics(f"cfg.{uuid.uuid4().hex[:8]}.")
    await log.ensure_topics([TopicSpec(name, Cleanup.COMPACT, 1) for name in (topics.config, topics.acks)])
    publisher = ConfigurationPublisher(log, topics, "one")
    await publisher.publish(Configuration(SCHEMA_MAJOR, (), ()), 7, 1)
    source = LogConfiguration(log, topics, tmp_path, "pod", "edge", lambda: 0)
    await source.start()
    await until(lambda: source.current is not None)
    before = source.current
    await make_anew(admin, topics.config)
    await asyncio.sleep(WATCH_SECONDS)  # nothing may happen in this time
    assert source.current is before

    again = ConfigurationPublisher(log, topics, "two")
    assert await again.load() is None
    changed = Configuration(SCHEMA_MAJOR, (), (), {"something": 1})
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                head = await again.publish(changed, 1, 1)
                break
            except LogUnavailable:
                await asyncio.sleep(0.2)
    await until(lambda: source._head is not None and source._head.instance == "two")
    assert source._head == head
    assert source.current == changed
    await source.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.05)


async def test_another_cluster_at_the_same_address_gets_no_mail(tmp_path: Path) -> None:
    """A process that runs does not go on with a cluster that lacks what it accepted; one that starts says so."""
    with Kafka(tmp_path / "one") as kafka:
        log = KafkaLog(settings_for(kafka), client_id="test")
        await log.start()
        first = await log.instance_id()
        await log.ensure_topics([TopicSpec("work", Cleanup.TRIM, 1)])
        await log.append(Entry("work", b"x"), LIMIT)
        await until(lambda: log.available)
        kafka.replace_by_another_cluster()
        await until(lambda: not log.available)
        async with asyncio.timeout(PATIENCE):
            while not await log._connection.answers(kafka.nodes[0].number, 1.0) and not log._connection._foreign:
                await asyncio.sleep(0.1)
        assert not log.available
        with pytest.raises(LogUnavailable):
            await log.append(Entry("work", b"y"), LIMIT)
        await log.close()
        other = KafkaLog(settings_for(kafka), client_id="test")
        await other.start()
        assert await other.instance_id() != first
        await other.close()


async def test_bodies_on_a_real_cluster_go_when_nothing_refers_to_them(log: KafkaLog) -> None:
    """The whole look, with the cluster's own offsets, commits and times."""
    topics = Topics(f"trim.{uuid.uuid4().hex[:8]}.")
    await log.ensure_topics(topics.specs(("local",), 1))
    content = ContentLog(log, topics.content_transit)
    references = [await content.write(f"id{number}", MemoryBody(b"x" * 1000), LIMIT) for number in range(4)]
    for reference in (references[0], references[2]):
        envelope = Envelope(1, "id", "", (Recipient("a@b.test"),), 0, 1000, content=reference)
        await log.append(work_entry(topics.relay, envelope, b"", None), LIMIT)
    consumer = log.consumer(topics.relay, topics.group("relay"), window=10)
    await consumer.start()
    records = await take(consumer, 2)
    later = int(time.time() * 1000) + 2 * 86_400_000

    async def held(trimmer_now: int) -> range:
        trimmer = ContentTrimmer(log, topics, ("local",), lambda: True, lambda: trimmer_now)
        await consumer.commit()
        await trimmer.look()
        return (await log.ends(topics.content_transit))[0]

    assert await held(later) == range(4)
    consumer.finish(records[0])
    assert await held(int(time.time() * 1000)) == range(4)
    assert await held(later) == range(2, 4)
    assert (await content.read(references[2], LIMIT)).size == 1000
    consumer.finish(records[1])
    assert await held(later) == range(4, 4)
    await consumer.close()
