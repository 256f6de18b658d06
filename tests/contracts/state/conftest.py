"""What the shared memory's contract suite needs of each backend: two edges, an outage, and a clock."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gatepost.backends.log_kafka import KafkaLog
from gatepost.backends.log_memory import MemoryLog
from gatepost.backends.log_sqlite import SqliteLog
from gatepost.backends.state_log import LogState
from gatepost.backends.state_memory import MemoryState
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.ports.log import Log
from gatepost.core.ports.state import Kind, State
from gatepost.core.topics import Topics
from testbed.kafka import Kafka

# No test waits so long; it only ends one that would hang.
PATIENCE = 60.0
NOW_MS = 1_790_000_000_000
LATER_MS = NOW_MS + 3_600_000
MOST = 5


class Note(msgspec.Struct, frozen=True):
    text: str
    count: int = 0


NOTES = Kind("notes", Note, 1, 1000)
FEW = Kind("few", Note, 1, MOST)
KINDS = (NOTES, FEW)


class Backend(ABC):
    """One shared memory; each `edge` is another process as far as it can tell."""

    @abstractmethod
    async def edge(self) -> State:
        """One more user, started; closed at the test's end."""

    @abstractmethod
    async def take_away(self) -> None:
        """Let changes fail from now on."""

    @abstractmethod
    async def restore(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...


class MemoryBackend(Backend):
    def __init__(self) -> None:
        self.state = MemoryState(KINDS, lambda: NOW_MS)

    async def edge(self) -> State:
        return self.state

    async def take_away(self) -> None:
        self.state.away = True

    async def restore(self) -> None:
        self.state.away = False

    async def close(self) -> None:
        await self.state.close()


class LogBackend(Backend):
    """Over any log; `open` gives a started one."""

    def __init__(self) -> None:
        self.logs: list[Log] = []
        self.states: list[LogState] = []
        self.topics = Topics(f"t{uuid.uuid4().hex[:8]}.")

    @abstractmethod
    async def open(self) -> Log: ...

    async def edge(self) -> LogState:
        log = await self.open()
        await log.ensure_topics([spec for spec in self.topics.specs((), 3) if spec.name == self.topics.state])
        state = LogState(log, self.topics.state, KINDS, lambda: NOW_MS)
        self.states.append(state)
        await state.start()
        return state

    async def close(self) -> None:
        await self.restore()
        for state in self.states:
            await state.close()
        for log in self.logs:
            await log.close()


class OverMemory(LogBackend):
    async def open(self) -> Log:
        if not self.logs:
            self.logs.append(MemoryLog())
            await self.logs[0].start()
        return self.logs[0]

    async def take_away(self) -> None:
        (log,) = self.logs
        assert isinstance(log, MemoryLog)
        log.go_away()

    async def restore(self) -> None:
        for log in self.logs:
            assert isinstance(log, MemoryLog)
            log.come_back()
            log.release()


class OverSqlite(LogBackend):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = folder / "log.sqlite3"
        self._blocker: sqlite3.Connection | None = None

    async def open(self) -> Log:
        if not self.logs:
            self.logs.append(SqliteLog(self._path))
            await self.logs[0].start()
        return self.logs[0]

    async def take_away(self) -> None:
        self._blocker = sqlite3.connect(self._path, isolation_level=None)
        self._blocker.execute("BEGIN IMMEDIATE")

    async def restore(self) -> None:
        if self._blocker is not None:
            self._blocker.close()
            self._blocker = None


class OverKafka(LogBackend):
    def __init__(self, broker: Kafka) -> None:
        super().__init__()
        self._broker = broker
        self._suspended = False

    async def open(self) -> Log:
        servers = tuple(self._broker.bootstrap.split(","))
        settings = KafkaSettings(bootstrap_servers=servers, replication_factor=1, min_insync_replicas=1)
        log = KafkaLog(settings, client_id=f"state-{len(self.logs)}")
        self.logs.append(log)
        await log.start()
        return log

    async def take_away(self) -> None:
        self._broker.suspend()
        self._suspended = True

    async def restore(self) -> None:
        if self._suspended:
            self._suspended = False
            self._broker.resume()
            await until(lambda: all(log.available for log in self.logs))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


@pytest.fixture(params=["memory", "over memory", "over sqlite", pytest.param("kafka", marks=pytest.mark.servers)])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    made: Backend
    match request.param:
        case "memory":
            made = MemoryBackend()
        case "over memory":
            made = OverMemory()
        case "over sqlite":
            made = OverSqlite(tmp_path)
        case _:
            made = OverKafka(request.getfixturevalue("broker"))
    try:
        yield made
    finally:
        await made.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits until a condition holds."""
    return until


@pytest.fixture
def key() -> Callable[[], str]:
    """Gives keys that no other test uses: a broker serves them all."""
    numbers = itertools.count()
    own = uuid.uuid4().hex[:8]
    return lambda: f"{own}.{next(numbers)}"


@pytest.fixture
def vocabulary() -> dict[str, Any]:
    return {"notes": NOTES, "few": FEW, "note": Note, "now": NOW_MS, "later": LATER_MS, "most": MOST}
