"""The configuration between processes: what a pod takes, keeps and says, and what the operator hears of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gatepost.backends.config_log import CACHE_FILE, AckReader, ConfigurationPublisher, LogConfiguration
from gatepost.backends.log_memory import MemoryLog
from gatepost.core.config_head import Ack, Head, decode_ack, encode, head_key
from gatepost.core.configuration import Configuration, DeliveryPlan, DomainConfig
from gatepost.core.ports.log import Entry
from gatepost.core.topics import Topics

TOPICS = Topics()
NOW = 1_000_000


def serving(*names: str) -> Configuration:
    domains = tuple(DomainConfig(f"{name}.test", "", 1, "Any", DeliveryPlan("Discard")) for name in names)
    return Configuration(1, domains, ())


@pytest.fixture
async def log() -> AsyncIterator[MemoryLog]:
    made = MemoryLog()
    await made.start()
    await made.ensure_topics([s for s in TOPICS.specs((), 1) if s.name in (TOPICS.config, TOPICS.acks)])
    yield made
    await made.close()


@pytest.fixture
async def publisher(log: MemoryLog) -> ConfigurationPublisher:
    made = ConfigurationPublisher(log, TOPICS, "log-1")
    await made.load()
    return made


@pytest.fixture
async def pod(log: MemoryLog, tmp_path: Path) -> AsyncIterator[LogConfiguration]:
    made = LogConfiguration(log, TOPICS, tmp_path, "pod-1", "edge", lambda: NOW)
    yield made
    await made.close()


def said(log: MemoryLog) -> Ack | None:
    """The newest ack of the pod."""
    records = [record for record in log.records(TOPICS.acks) if record.key == b"pod-1"]
    return decode_ack(records[-1].value) if records and records[-1].value else None


async def test_a_pod_takes_what_is_published_and_says_so(
    log: MemoryLog, publisher: ConfigurationPublisher, pod: LogConfiguration, until: Any
) -> None:
    seen: list[Configuration] = []
    pod.on_change(seen.append)
    await pod.start()
    assert pod.current is None
    head = await publisher.publish(serving("a"), 3, 1)
    await until(lambda: seen == [serving("a")])
    await until(lambda: (ack := said(log)) and ack.hash == head.hash)
    assert said(log) == Ack("pod-1", "edge", NOW, 3, 1, head.hash)


async def test_the_highest_epoch_counts_whatever_comes_later(
    publisher: ConfigurationPublisher, pod: LogConfiguration, until: Any
) -> None:
    await pod.start()
    await publisher.publish(serving("new"), 2, 1)
    await until(lambda: pod.current == serving("new"))
    late = ConfigurationPublisher(pod._log, TOPICS, "log-1")
    await late.publish(serving("late"), 1, 99)
    await publisher.publish(serving("newer"), 2, 2)
    await until(lambda: pod.current == serving("newer"))


async def test_a_pod_starts_from_its_cache_while_the_log_is_away(
    log: MemoryLog, publisher: ConfigurationPublisher, pod: LogConfiguration, tmp_path: Path, until: Any
) -> None:
    await pod.start()
    await publisher.publish(serving("a"), 1, 1)
    await until(lambda: (tmp_path / CACHE_FILE).exists())
    log.go_away()
    again = LogConfiguration(log, TOPICS, tmp_path, "pod-2", "edge", lambda: NOW)
    await again.start()
    assert again.current == serving("a")
    log.come_back()
    await again.close()


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema": 99}', b"[]"])
async def test_a_damaged_cache_is_passed_over(pod: LogConfiguration, tmp_path: Path, content: bytes) -> None:
    (tmp_path / CACHE_FILE).write_bytes(content)
    await pod.start()
    assert pod.current is None


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (Head("log-1", 9, 1, "f" * 64, ("missing",)), "1 of 1 parts are missing"),
        (Head("log-1", 9, 1, "f" * 64, (), ("Telepathy",)), "needs features that this program lacks: Telepathy"),
        (Head("log-1", 9, 1, "f" * 64, ()), "do not give the hash"),
    ],
)
async def test_what_cannot_be_used_is_refused_and_the_old_stays(
    log: MemoryLog,
    publisher: ConfigurationPublisher,
    pod: LogConfiguration,
    until: Any,
    head: Head,
    reason: str,
) -> None:
    await pod.start()
    good = await publisher.publish(serving("a"), 1, 1)
    await until(lambda: pod.current == serving("a"))
    await log.append(Entry(TOPICS.config, encode(head), head_key(9)), 1.0)
    ack = await until(lambda: (ack := said(log)) and ack.error and ack)
    assert reason in ack.error
    assert (ack.hash, ack.epoch, ack.generation) == (good.hash, 1, 1)
    assert pod.current == serving("a")
    await publisher.publish(serving("b"), 10, 1)
    await until(lambda: (ack := said(log)) and not ack.error and ack.epoch == 10)


async def test_a_service_that_chokes_on_a_configuration_goes_on_following(
    log: MemoryLog, publisher: ConfigurationPublisher, pod: LogConfiguration, until: Any
) -> None:
    """Fails without guarding the callbacks: the follower's task would end unseen."""

    def choke(configuration: Configuration) -> None:
        if configuration == serving("bad"):
            raise KeyError("a fault of ours")

    pod.on_change(choke)
    await pod.start()
    await publisher.publish(serving("bad"), 1, 1)
    ack = await until(lambda: (ack := said(log)) and ack.error and ack)
    assert "cannot be put in force" in ack.error
    assert pod.current is None
    await publisher.publish(serving("good"), 1, 2)
    await until(lambda: pod.current == serving("good"))


async def test_a_pod_that_ends_takes_its_ack_back(
    log: MemoryLog, publisher: ConfigurationPublisher, tmp_path: Path, until: Any
) -> None:
    pod = LogConfiguration(log, TOPICS, tmp_path, "pod-1", "edge", lambda: NOW)
    await pod.start()
    await until(lambda: said(log))
    await pod.close()
    assert said(log) is None


async def test_a_reader_that_knows_fewer_fields_acknowledges_the_published_hash(
    log: MemoryLog, pod: LogConfiguration, until: Any
) -> None:
    """Fails without taking the hash from the head: what is passed over is missing from the reader's own."""
    data = serving("a").encode().replace(b'"schema":1', b'"schema":1,"zz_new":true')
    digest = hashlib.sha256(data).hexdigest()
    await log.append(Entry(TOPICS.config, data, b"part/" + digest.encode()), 1.0)
    head = Head("log-1", 1, 1, digest, (digest,))
    await log.append(Entry(TOPICS.config, encode(head), head_key(1)), 1.0)
    await pod.start()
    await until(lambda: pod.current == serving("a"))
    await until(lambda: (ack := said(log)) and ack.hash == digest)


class Hearing:
    """An AckReader with a clock that a test moves, and a count of what it told."""

    def __init__(self, log: MemoryLog) -> None:
        self.now = NOW
        self.told = 0
        self.reader = AckReader(log, TOPICS, self._tell, lambda: self.now)

    def _tell(self) -> None:
        self.told += 1


@pytest.fixture
async def hearing(log: MemoryLog) -> AsyncIterator[Callable[[], Hearing]]:
    tasks: list[asyncio.Task[None]] = []

    def start() -> Hearing:
        made = Hearing(log)
        tasks.append(asyncio.create_task(made.reader.run()))
        return made

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def say(log: MemoryLog, pod: str, digest: str, at_ms: int) -> None:
    ack = Ack(pod, "edge", at_ms, 1, 1, digest)
    await log.append(Entry(TOPICS.acks, encode(ack), pod.encode()), 1.0)


async def test_what_is_heard_now_was_said_now_whatever_the_speakers_clock(
    log: MemoryLog, hearing: Callable[[], Hearing], until: Any
) -> None:
    """Fails without one's own clock: a pod whose clock is an hour behind would never count as alive."""
    await say(log, "past", "x", 5)
    heard = hearing()
    await until(lambda: heard.reader.acks)
    await say(log, "behind", "x", NOW - 3_600_000)
    await until(lambda: len(heard.reader.acks) == 2)
    assert {ack.pod: ack.at_ms for ack in heard.reader.acks} == {"past": 5, "behind": NOW}


async def test_only_news_is_told(log: MemoryLog, hearing: Callable[[], Hearing], until: Any) -> None:
    heard = hearing()
    await say(log, "a", "x", 1)
    await until(lambda: heard.told == 1)
    for number in range(5):
        heard.now = NOW + number + 1
        await say(log, "a", "x", number)
        await until(lambda: heard.reader.acks[0].at_ms == heard.now)
    assert heard.told == 1
    await say(log, "a", "y", 9)
    await until(lambda: heard.told == 2)
    await log.append(Entry(TOPICS.acks, None, b"a"), 1.0)
    await until(lambda: heard.told == 3)
    assert heard.reader.acks == ()
