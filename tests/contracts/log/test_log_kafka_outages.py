"""The log on Kafka while brokers hang, die and come back, and when the producer itself is spoilt."""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from gatepost.backends.log_kafka import KafkaLog, quiet
from gatepost.backends.log_kafka.member import Member
from gatepost.backends.log_kafka.quiet import INTERVAL
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.ports.log import Cleanup, Entry, LogUnavailable, LogUnknown, Position, TopicSpec
from testbed.kafka import Kafka

pytestmark = [pytest.mark.servers, pytest.mark.lengthy]
LIMIT = 60.0
SHORT = 0.5


def settings_for(kafka: Kafka, copies: int = 1, in_sync: int = 1) -> KafkaSettings:
    servers = tuple(kafka.bootstrap.split(","))
    return KafkaSettings(bootstrap_servers=servers, replication_factor=copies, min_insync_replicas=in_sync)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Kafka]:
    """A broker that the test may kill."""
    with Kafka(tmp_path) as kafka:
        yield kafka


@pytest.fixture
async def log(own: Kafka) -> AsyncIterator[KafkaLog]:
    log = KafkaLog(settings_for(own), client_id="test")
    await log.start()
    await log.ensure_topics([TopicSpec("work", Cleanup.TRIM, 1)])
    await log.append(Entry("work", b"first"), LIMIT)
    yield log
    own.resume() if own.nodes[0].running else None
    await log.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_broker_that_hangs(own: Kafka, log: KafkaLog) -> None:
    own.suspend()
    with pytest.raises(LogUnknown) as caught:
        await log.append(Entry("work", b"in doubt"), SHORT)
    await until(lambda: not log.available)
    with pytest.raises(LogUnavailable):
        await log.append(Entry("work", b"refused"), SHORT)
    own.resume()
    async with asyncio.timeout(LIMIT):
        assert await caught.value.outcome == Position(0, 1)
    await until(lambda: log.available)
    assert await log.append(Entry("work", b"after"), LIMIT) == Position(0, 2)


async def test_a_broker_that_is_killed_and_comes_back(own: Kafka, log: KafkaLog) -> None:
    consumer = log.consumer("work", "group", window=10)
    await consumer.start()
    follower = log.follower("work")
    await follower.start()
    [record] = await consumer.fetch(LIMIT)
    consumer.finish(record)
    producer = log._producer._sending  # type: ignore[union-attr]
    await asyncio.to_thread(own.kill9)
    await until(lambda: not log.available)
    assert list(await consumer.fetch(SHORT)) == []
    with pytest.raises(LogUnavailable):
        await log.append(Entry("work", b"refused"), SHORT)
    await asyncio.to_thread(own.start)
    await until(lambda: log.available)
    assert await log.append(Entry("work", b"after"), LIMIT) == Position(0, 1)
    assert log._producer._sending is producer  # type: ignore[union-attr]
    async with asyncio.timeout(LIMIT):
        while not (records := await consumer.fetch(1.0)):
            pass
        assert [record.value for record in records] == [b"after"]
        values: list[bytes] = []
        while len(values) < 2:
            values += [record.value for record in await follower.fetch(1.0)]
        assert values == [b"first", b"after"]
    await consumer.close()
    await follower.close()


async def test_appends_in_flight_when_the_broker_is_killed(own: Kafka, log: KafkaLog) -> None:
    """Each ends as written or in doubt; those in doubt are written once, and we learn where."""
    own.suspend()
    tasks = [asyncio.create_task(log.append(Entry("work", b"%d" % n), SHORT)) for n in range(50)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(own.kill9)
    await asyncio.to_thread(own.start)
    offsets = set()
    async with asyncio.timeout(LIMIT):
        for result in results:
            assert isinstance(result, LogUnknown)
            offsets.add((await result.outcome).offset)
    await until(lambda: log.available)
    records = await log.read("work", 0, sorted(offsets), LIMIT)
    assert sorted(int(record.value) for record in records) == list(range(50))
    assert await log.append(Entry("work", b"after"), LIMIT) == Position(0, 51)


async def test_closing_while_the_broker_hangs(own: Kafka, log: KafkaLog) -> None:
    consumer = log.consumer("work", "group", window=10)
    await consumer.start()
    follower = log.follower("work")
    await follower.start()
    own.suspend()
    with pytest.raises(LogUnknown) as caught:
        await log.append(Entry("work", b"in doubt"), SHORT)
    async with asyncio.timeout(LIMIT):
        await consumer.close()
        await follower.close()
        await log.close()
        with pytest.raises(LogUnknown):
            await caught.value.outcome
    assert not log.available
    await until(lambda: len(asyncio.all_tasks()) == 1)


@pytest.mark.parametrize("away", ["nothing there", "hanging"])
async def test_starting_without_a_broker(away: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatepost.backends.log_kafka.connection.START_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if away == "nothing there":
            server.close()
        log = KafkaLog(KafkaSettings(bootstrap_servers=(f"127.0.0.1:{port}",)), client_id="test")
        for _ in range(2):
            with pytest.raises(LogUnavailable, match=f"127.0.0.1:{port}"):
                await log.start()
        assert not log.available
        await log.close()
    await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_the_same_log_starts_once_there_is_a_broker(own: Kafka) -> None:
    await asyncio.to_thread(own.kill9)
    log = KafkaLog(settings_for(own), client_id="test")
    with pytest.raises(LogUnavailable):
        await log.start()
    await asyncio.to_thread(own.start)
    await log.start()
    assert log.available
    await log.close()


async def test_a_refused_record_does_not_spoil_the_others(broker: Kafka) -> None:
    topic = f"test.{uuid.uuid4().hex[:12]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "1000"})])
    await admin.close()
    log = KafkaLog(settings_for(broker), client_id="test")
    await log.start()
    assert await log.append(Entry(topic, b"small"), LIMIT) == Position(0, 0)
    for _ in range(2):
        with pytest.raises(LogUnavailable, match="refused"):
            await log.append(Entry(topic, b"x" * 2000), LIMIT)
    assert await log.append(Entry(topic, b"small"), LIMIT) == Position(0, 1)
    with pytest.raises(LogUnavailable, match="MSG_SIZE_TOO_LARGE"):
        await log.append(Entry(topic, b"x" * 2_000_000), LIMIT)
    with pytest.raises(LogUnknown):  # some were written
        await log.append_many([Entry(topic, b"small"), Entry(topic, b"x" * 2_000_000)], LIMIT)
    await log.close()


async def test_an_idle_producer_that_the_broker_has_forgotten(tmp_path: Path) -> None:
    """Its numbers go on where the broker knows none any more: nothing is refused, nothing is in doubt."""
    forgetful = {"producer.id.expiration.ms": "500", "producer.id.expiration.check.interval.ms": "100"}
    with Kafka(tmp_path, properties=forgetful) as kafka:
        log = KafkaLog(settings_for(kafka), client_id="test")
        await log.start()
        await log.ensure_topics([TopicSpec("work", Cleanup.TRIM, 1)])
        producer = log._producer._sending  # type: ignore[union-attr]
        for number in range(3):
            assert await log.append(Entry("work", b"value"), LIMIT) == Position(0, number)
            await asyncio.sleep(2)
            await log.trim("work", 0, number + 1)
        assert log._producer._sending is producer  # type: ignore[union-attr]
        await log.close()


async def test_a_topic_that_does_not_exist(broker: Kafka) -> None:
    log = KafkaLog(settings_for(broker), client_id="test")
    await log.start()
    with pytest.raises(LogUnavailable, match=r"test\.missing"):
        await log.append(Entry("test.missing", b"value"), SHORT)
    assert log.available
    await log.close()


async def test_a_member_that_was_thought_dead_begins_anew(broker: Kafka) -> None:
    """Its loop stands still beyond the session's time: the group gave its partitions away meanwhile."""
    import time

    topic = f"test.{uuid.uuid4().hex[:12]}"
    log = KafkaLog(settings_for(broker), client_id="test")
    await log.start()
    await log.ensure_topics([TopicSpec(topic, Cleanup.TRIM, 1)])
    await log.append_many([Entry(topic, b"%d" % n) for n in range(3)], LIMIT)
    consumer = log.consumer(topic, "group", window=10)
    lost: list[frozenset[int]] = []
    consumer.on_revoked(lost.append)
    await consumer.start()
    records: list[Any] = []
    async with asyncio.timeout(LIMIT):
        while len(records) < 3:
            records += await consumer.fetch(1.0)
    consumer.finish(records[1])
    await consumer.commit()
    time.sleep(8)  # noqa: ASYNC251 - the fault itself
    again: list[Any] = []
    async with asyncio.timeout(LIMIT):
        while len(again) < 2:
            again += await consumer.fetch(1.0)
    assert [record.offset for record in again] == [0, 2]
    assert lost == [frozenset({0})]
    for record in again:
        consumer.finish(record)
    await consumer.commit()
    assert await log.committed(topic, "group") == {0: 3}
    await consumer.close()
    await log.close()


async def test_the_client_libraries_do_not_flood_the_log(
    own: Kafka, log: KafkaLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever another test of this process has configured, and heard of another broker a moment ago.
    for name in ("aiokafka", quiet.LIBRDKAFKA):
        caplog.set_level(logging.INFO, logger=name)
    monkeypatch.setattr(quiet._filter, "_last", {})
    await asyncio.to_thread(own.kill9)
    await until(lambda: not log.available)
    await asyncio.sleep(2)  # about twenty attempts to connect
    assert INTERVAL > 10
    lines = [(record.name, record.msg) for record in caplog.records if record.name.startswith("aiokafka")]
    assert lines
    assert len(lines) == len(set(lines))
    others = [record.args for record in caplog.records if record.name == quiet.LIBRDKAFKA]
    facilities = [line[0] for line in others if isinstance(line, tuple)]
    assert "FAIL" in facilities
    assert len(facilities) == len(set(facilities))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("three"), nodes=3) as kafka:
        yield kafka


@pytest.mark.parametrize("how", ["kill9", "suspend"])
async def test_one_of_three_brokers_is_lost(three: Kafka, how: str) -> None:
    """Nothing acknowledged is lost, nothing is there twice, and the log is available again soon."""
    log = KafkaLog(settings_for(three, copies=3, in_sync=2), client_id="test")
    await log.start()
    topic = f"test.{how}"
    assert await log.ensure_topics([TopicSpec(topic, Cleanup.TRIM, 3)]) == []
    written: dict[Position, bytes] = {}
    doubtful: list[LogUnknown] = []
    stop = asyncio.Event()

    async def sender(name: int) -> None:
        number = 0
        while not stop.is_set():
            value = b"%d.%d" % (name, number)
            number += 1
            try:
                written[await log.append(Entry(topic, value), 8.0)] = value
            except LogUnknown as error:
                doubtful.append(error)
            except LogUnavailable:
                await asyncio.sleep(0.05)

    senders = [asyncio.create_task(sender(name)) for name in range(5)]
    await until(lambda: len(written) > 200)
    victim = three.nodes[0]
    await asyncio.to_thread(getattr(victim, how))
    before = len(written)
    await until(lambda: len(written) > before + 500)
    stop.set()
    await asyncio.gather(*senders)
    if how == "suspend":
        victim.resume()
    else:
        await asyncio.to_thread(victim.start)
    async with asyncio.timeout(LIMIT):
        for error in doubtful:
            assert (await error.outcome) not in written
    by_partition: dict[int, list[int]] = {}
    for position in written:
        by_partition.setdefault(position.partition, []).append(position.offset)
    for partition, offsets in by_partition.items():
        for record in await log.read(topic, partition, offsets, LIMIT):
            assert record.value == written[Position(partition, record.offset)]
    follower = log.follower(topic)
    await follower.start()
    values: list[bytes] = []
    async with asyncio.timeout(LIMIT):
        # A broker that stood still believes for a moment that it leads: the end that it knows is an old one.
        while not follower.caught_up or len(values) < len(written) + len(doubtful):
            values += [record.value for record in await follower.fetch(1.0)]
    assert len(values) == len(set(values)) == len(written) + len(doubtful)
    await follower.close()
    await log.close()


async def stuck(member: Member) -> None:
    """It waits for its heartbeat's end, which never comes."""
    coordinator = member.client._coordinator
    coordinator._stop_heartbeat_task = asyncio.Event().wait
    coordinator.request_rejoin()
    await until(lambda: member.rebalancing)


async def without_fetching(member: Member) -> None:
    """The task that reads has ended."""
    member.client._fetcher._fetch_task.cancel()


async def without_metadata(member: Member) -> None:
    """The task that learns who leads has ended: all that waits for its next answer would wait for ever."""
    member.client._client._sync_task.cancel()


@pytest.mark.parametrize("hurt", [stuck, without_fetching, without_metadata], ids=lambda hurt: hurt.__name__)
async def test_a_member_that_does_nothing_any_more_is_replaced(
    broker: Kafka, hurt: Callable[[Member], Awaitable[None]]
) -> None:
    """Nobody else notices when the client's own tasks end or stand still; its partitions would do so with it."""
    topic = f"test.{uuid.uuid4().hex[:12]}"
    log = KafkaLog(settings_for(broker), client_id="test")
    await log.start()
    await log.ensure_topics([TopicSpec(topic, Cleanup.TRIM, 1)])
    consumer = log.consumer(topic, "group", window=10)
    await consumer.start()
    await log.append(Entry(topic, b"before"), LIMIT)
    async with asyncio.timeout(LIMIT):
        while not (records := await consumer.fetch(1.0)):
            pass
    consumer.finish(records[0])
    await consumer.commit()
    first = consumer._member
    assert first is not None
    await hurt(first)
    await until(lambda: consumer._member is not first)
    await log.append(Entry(topic, b"after"), LIMIT)
    async with asyncio.timeout(LIMIT):
        while not (records := await consumer.fetch(1.0)):
            pass
    assert [record.value for record in records] == [b"after"]
    await consumer.close()
    await log.close()
