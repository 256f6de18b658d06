"""What the log's contract suite needs of each backend: another process's view, an outage, a member's death."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gatepost.backends.log_kafka import KafkaLog
from gatepost.backends.log_memory import MemoryLog, MemoryStorage
from gatepost.backends.log_sqlite import SqliteLog
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.ports.log import Cleanup, Consumer, Entry, Log, LogError, Record, TopicSpec
from testbed.kafka import Kafka

# How long a test waits for something that is certain to come; never a measure of speed.
PATIENCE = 60.0

# A member of a group in another process: takes records, finishes some, commits, and waits to be killed.
MEMBER = """
import asyncio, json, sys
from pathlib import Path
from gatepost.backends.log_kafka import KafkaLog
from gatepost.backends.log_sqlite import SqliteLog
from gatepost.core.manifest.settings import KafkaSettings

async def main(kind, place, topic, group, count, finish):
    if kind == "sqlite":
        log = SqliteLog(Path(place))
    else:
        servers = tuple(place.split(","))
        settings = KafkaSettings(bootstrap_servers=servers, replication_factor=1, min_insync_replicas=1)
        log = KafkaLog(settings, client_id="member")
    await log.start()
    consumer = log.consumer(topic, group, window=100)
    await consumer.start()
    records = []
    while len(records) < count:
        records += await consumer.fetch(1.0)
    for record in records:
        if record.offset in finish:
            consumer.finish(record)
    await consumer.commit()
    print("ready", flush=True)
    while True:
        await consumer.fetch(1.0)

asyncio.run(main(*json.loads(sys.argv[1])))
"""


class Backend(ABC):
    """One log that outlives its users: each `open` is a process of its own as far as the log can tell."""

    kind: str

    def __init__(self) -> None:
        self.logs: list[Log] = []

    @abstractmethod
    def new(self) -> Log:
        """Another process's Log, not started."""

    async def open(self) -> Log:
        """Another process's Log, started; closed at the test's end."""
        log = self.new()
        self.logs.append(log)
        await log.start()
        return log

    async def reopen(self, log: Log) -> Log:
        """Close a Log and open another one on the same data."""
        await log.close()
        self.logs.remove(log)
        return await self.open()

    @abstractmethod
    async def stall(self, log: Log) -> None:
        """Let appends hang from now on, until `restore`."""

    @abstractmethod
    async def take_away(self, log: Log) -> None:
        """Make the log away, and wait until `log` knows."""

    @abstractmethod
    async def restore(self, log: Log) -> None:
        """End a stall or an outage, and wait until `log` knows."""

    @abstractmethod
    async def killed_member(self, topic: str, group: str, count: int, finish: Sequence[int]) -> None:
        """Let another process take `count` records, finish some offsets, commit, and die by kill -9."""

    async def close(self) -> None:
        for log in self.logs:
            await log.close()


class MemoryBackend(Backend):
    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self._storage = MemoryStorage()

    def new(self) -> Log:
        return MemoryLog(self._storage)

    async def stall(self, log: Log) -> None:
        assert isinstance(log, MemoryLog)
        log.hold()

    async def take_away(self, log: Log) -> None:
        assert isinstance(log, MemoryLog)
        log.go_away()

    async def restore(self, log: Log) -> None:
        assert isinstance(log, MemoryLog)
        log.come_back()
        log.release()

    async def killed_member(self, topic: str, group: str, count: int, finish: Sequence[int]) -> None:
        log = self.new()
        await log.start()
        consumer = log.consumer(topic, group, window=100)
        await consumer.start()
        for record in await take_from(consumer, count):
            if record.offset in finish:
                consumer.finish(record)
        await consumer.commit()
        # Never closed: nobody tells the others that it is gone.


class SqliteBackend(Backend):
    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = folder / "state" / "log.sqlite3"
        self._blocker: sqlite3.Connection | None = None
        self._blocked: asyncio.Task[Any] | None = None

    def new(self) -> Log:
        return SqliteLog(self._path)

    async def stall(self, log: Log) -> None:
        # What a disk that hangs looks like to the writer: it waits.
        self._blocker = sqlite3.connect(self._path, isolation_level=None)
        self._blocker.execute("BEGIN IMMEDIATE")

    async def take_away(self, log: Log) -> None:
        await log.ensure_topics([TopicSpec("plug", Cleanup.EXPIRE, 1, 1000)])
        await self.stall(log)
        self._blocked = asyncio.create_task(log.append(Entry("plug", b"waits"), PATIENCE))
        await until(lambda: not log.available)

    async def restore(self, log: Log) -> None:
        if self._blocker is not None:
            self._blocker.close()
            self._blocker = None
        if self._blocked is not None:
            await self._blocked
            self._blocked = None
        await until(lambda: log.available)

    async def killed_member(self, topic: str, group: str, count: int, finish: Sequence[int]) -> None:
        for log in self.logs:
            await log.close()
        self.logs.clear()
        await run_and_kill(["sqlite", str(self._path), topic, group, count, list(finish)])

    async def close(self) -> None:
        if self._blocker is not None:
            self._blocker.close()
        if self._blocked is not None:
            with contextlib.suppress(LogError):
                await self._blocked
        await super().close()


class KafkaBackend(Backend):
    kind = "kafka"

    def __init__(self, broker: Kafka) -> None:
        super().__init__()
        self.broker = broker
        self._suspended = False

    def new(self) -> Log:
        servers = tuple(self.broker.bootstrap.split(","))
        settings = KafkaSettings(bootstrap_servers=servers, replication_factor=1, min_insync_replicas=1)
        return KafkaLog(settings, client_id=f"contract-{len(self.logs)}")

    async def stall(self, log: Log) -> None:
        self.broker.suspend()
        self._suspended = True

    async def take_away(self, log: Log) -> None:
        await self.stall(log)
        await until(lambda: not log.available)

    async def restore(self, log: Log) -> None:
        self._resume()
        await until(lambda: log.available)

    async def killed_member(self, topic: str, group: str, count: int, finish: Sequence[int]) -> None:
        await run_and_kill(["kafka", self.broker.bootstrap, topic, group, count, list(finish)])

    async def close(self) -> None:
        self._resume()
        await super().close()

    def _resume(self) -> None:
        if self._suspended:
            self._suspended = False
            self.broker.resume()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


@pytest.fixture(params=["memory", "sqlite", pytest.param("kafka", marks=pytest.mark.servers)])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    made: Backend
    match request.param:
        case "memory":
            made = MemoryBackend()
        case "sqlite":
            made = SqliteBackend(tmp_path)
        case _:
            made = KafkaBackend(request.getfixturevalue("broker"))
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def log(backend: Backend) -> Log:
    return await backend.open()


@pytest.fixture
def topic(log: Log) -> Callable[..., Awaitable[str]]:
    """Makes a topic of its own for the test; returns its name."""

    async def make(cleanup: Cleanup = Cleanup.TRIM, partitions: int = 1, retention_ms: int = 0) -> str:
        name = f"test.{uuid.uuid4().hex[:12]}"
        await log.ensure_topics([TopicSpec(name, cleanup, partitions, retention_ms)])
        return name

    return make


@pytest.fixture
def take() -> Callable[[Any, int], Awaitable[list[Record]]]:
    """Reads exactly so many records from a consumer or follower."""
    return take_from


async def take_from(reader: Any, count: int) -> list[Record]:
    records: list[Record] = []
    async with asyncio.timeout(PATIENCE):
        while len(records) < count:
            records += await reader.fetch(1.0)
    assert len(records) == count, f"{len(records)} records, {count} were expected"
    return records


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits until a condition holds."""
    return until


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)


async def run_and_kill(arguments: list[Any]) -> None:
    paths = os.pathsep.join(path for path in sys.path if path)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        MEMBER,
        json.dumps(arguments),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await process.stdout.readline() == b"ready\n"
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


@pytest.fixture
async def consumers() -> AsyncIterator[Callable[..., Awaitable[Consumer]]]:
    """Starts members of groups, which are closed at the test's end."""
    started: list[Consumer] = []

    async def start(log: Log, topic: str, group: str = "", window: int = 100) -> Consumer:
        consumer = log.consumer(topic, group or f"group.{topic}", window=window)
        started.append(consumer)
        await consumer.start()
        return consumer

    yield start
    for consumer in started:
        await consumer.close()
