"""What becomes of appends that fail, and of the producer itself; the rest is shown on real brokers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from gatepost.backends.log_kafka import producer as module
from gatepost.backends.log_kafka import sending
from gatepost.backends.log_kafka.health import Health
from gatepost.backends.log_kafka.producer import Producer
from gatepost.backends.log_kafka.sending import Sending
from gatepost.core.manifest.settings import KafkaSecurity, KafkaSettings
from gatepost.core.ports.log import Entry, LogUnavailable, LogUnknown, Position
from testbed import ports

LIMIT = 5.0
ENTRY = Entry("work", b"value")
NOBODY = KafkaSettings(bootstrap_servers=("127.0.0.1:1",))


class Written:
    """A report's message."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def offset(self) -> int:
        return self._offset


class Takes:
    """In place of Sending: takes everything, or refuses it with an error, and reports what a test says."""

    made: ClassVar[list[Takes]] = []

    def __init__(self, *_: Any) -> None:
        self.reports: list[sending.Report] = []
        self.refuses: KafkaError | None = None
        self.closed = False
        self.made.append(self)

    def send(self, _entry: Entry, _partition: int, report: sending.Report) -> None:
        if self.refuses is not None:
            raise KafkaException(self.refuses)
        self.reports.append(report)

    def report(self, error: KafkaError | None, offset: int = -1) -> None:
        self.reports.pop(0)(error, cast(Any, Written(offset)))

    async def close(self, _limit: float) -> None:
        self.closed = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Takes]:
    monkeypatch.setattr(module, "Sending", Takes)
    Takes.made.clear()
    return Takes.made


@pytest.fixture
async def producer(made: list[Takes]) -> AsyncIterator[Producer]:
    leads = {0: SimpleNamespace(leader=1)}
    connection = SimpleNamespace(known_partitions=lambda _: leads, refresh=lambda: None)
    health = Health(cast(Any, None))
    producer = Producer(NOBODY, "test", cast(Any, connection), health)
    producer.start()
    yield producer
    await producer.close()


async def appending(producer: Producer, made: list[Takes]) -> asyncio.Task[Position]:
    """Begin an append and return it once the newest producer has taken it."""
    before = len(made[-1].reports)
    task = asyncio.create_task(producer.append(ENTRY, LIMIT))
    async with asyncio.timeout(LIMIT):
        while len(made[-1].reports) == before:
            await asyncio.sleep(0)
    return task


async def test_a_record_that_is_written(producer: Producer, made: list[Takes]) -> None:
    task = await appending(producer, made)
    made[0].report(None, 7)
    assert await task == Position(0, 7)


async def test_a_refusal_is_certain_and_keeps_the_producer(producer: Producer, made: list[Takes]) -> None:
    task = await appending(producer, made)
    made[0].report(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    with pytest.raises(LogUnavailable, match="TOPIC_AUTHORIZATION_FAILED"):
        await task
    assert len(made) == 1


@pytest.mark.parametrize("code", [KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, KafkaError._FATAL, KafkaError.UNKNOWN])
async def test_any_other_error_is_a_doubt_and_brings_a_new_producer(
    producer: Producer, made: list[Takes], code: int
) -> None:
    broken, late = await appending(producer, made), await appending(producer, made)
    made[0].report(KafkaError(code))
    with pytest.raises(LogUnknown) as caught:
        await broken
    with pytest.raises(LogUnknown):
        await caught.value.outcome
    assert len(made) == 2
    task = await appending(producer, made)
    made[1].report(None, 3)
    assert await task == Position(0, 3)
    # What the old one still brings in counts.
    made[0].report(None, 2)
    assert await late == Position(0, 2)
    assert made[0].closed


async def test_a_producer_that_takes_nothing_more_is_replaced(producer: Producer, made: list[Takes]) -> None:
    made[0].refuses = KafkaError(KafkaError._FATAL)
    with pytest.raises(LogUnavailable, match="_FATAL"):
        await producer.append(ENTRY, LIMIT)
    task = await appending(producer, made)
    assert len(made) == 2
    made[1].report(None, 0)
    assert await task == Position(0, 0)


async def test_what_spoils_every_producer_is_not_met_with_ever_more_of_them(
    producer: Producer, made: list[Takes]
) -> None:
    for _ in range(3):
        made[-1].refuses = KafkaError(KafkaError._FATAL)
        with pytest.raises(LogUnavailable):
            await producer.append(ENTRY, LIMIT)
    assert len(made) == 2


async def test_a_full_queue_refuses_and_keeps_the_producer(producer: Producer, made: list[Takes]) -> None:
    made[0].refuses = KafkaError(KafkaError._QUEUE_FULL)
    with pytest.raises(LogUnavailable, match="_QUEUE_FULL"):
        await producer.append(ENTRY, LIMIT)
    assert len(made) == 1


async def test_a_record_of_which_nobody_knows_where_it_is(producer: Producer, made: list[Takes]) -> None:
    """The broker had it already, and has forgotten its offset."""
    task = await appending(producer, made)
    made[0].report(None, -1)
    with pytest.raises(LogUnknown, match="written"):
        await task


async def test_closing_reports_what_is_still_on_its_way() -> None:
    """librdkafka itself, and nobody at the other end: its record is given up, and its threads end in time."""
    settings = KafkaSettings(bootstrap_servers=(f"127.0.0.1:{ports.reserve()}",))
    found: list[int] = []
    one = Sending(settings, "test")
    for _ in range(3):
        one.send(ENTRY, 0, lambda error, _: found.append(error.code() if error else 0))
    async with asyncio.timeout(LIMIT):
        await one.close(0.1)
    assert found == [KafkaError._PURGE_QUEUE] * 3


async def test_an_end_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of librdkafka's may wait for DNS longer than a pod may take to stop."""
    free, ending = threading.Event(), threading.Event()

    class Stuck(sending.Librdkafka):
        def close(self, *_: Any) -> bool:
            ending.set()
            return free.wait(60)

    monkeypatch.setattr(sending, "Librdkafka", Stuck)
    monkeypatch.setattr(sending, "END_SECONDS", 0.05)
    one = Sending(NOBODY, "test")
    async with asyncio.timeout(LIMIT):
        await one.close(0)
    assert ending.is_set()
    free.set()


async def test_a_report_that_raises_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if nobody asks again behind it: no append of this process would ever come to an end."""
    found: list[int] = []
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    raised = asyncio.Event()

    class Purged(sending.Librdkafka):
        """Has reports at once, as if the broker had refused everything."""

        def poll(self, *_: Any) -> int:
            self.purge()
            return super().poll(0)

    def raises(*_: Any) -> None:
        raised.set()
        raise RuntimeError("a report")

    monkeypatch.setattr(sending, "Librdkafka", Purged)
    one = Sending(NOBODY, "test")
    one.send(ENTRY, 0, raises)
    async with asyncio.timeout(LIMIT):
        await raised.wait()
        one.send(ENTRY, 0, lambda *_: found.append(1))
        while not found:
            await asyncio.sleep(0.005)
    assert [str(fault["exception"]) for fault in faults] == ["a report"]
    await one.close(0)


async def test_reports_are_asked_for_less_often_while_none_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an outage with a record in doubt would wake the process up a thousand times a second."""
    settings = KafkaSettings(bootstrap_servers=(f"127.0.0.1:{ports.reserve()}",))
    monkeypatch.setattr(sending, "_PATIENCE", 3)
    one = Sending(settings, "test")
    loop = asyncio.get_running_loop()
    pauses: list[float] = []
    later = loop.call_later

    def noted(pause: float, work: Any, *arguments: Any) -> asyncio.TimerHandle:
        if work == one._ask:
            pauses.append(pause)
        return later(pause, work, *arguments)

    monkeypatch.setattr(loop, "call_later", noted)
    one.send(ENTRY, 0, lambda *_: None)
    async with asyncio.timeout(LIMIT):
        while sending.SELDOM_SECONDS not in pauses:
            await asyncio.sleep(0.005)
    assert pauses[0] == sending.FIRST_SECONDS
    assert sending.NEXT_SECONDS in pauses
    await one.close(0)


@pytest.mark.parametrize(
    "wrong", [{"ca_file": "/nowhere/ca.pem"}, {"username": "edge", "password_file": "/nowhere/password"}]
)
async def test_files_that_are_not_there_are_told(wrong: dict[str, str]) -> None:
    with pytest.raises(LogUnavailable, match="security settings"):
        Sending(KafkaSettings(security=KafkaSecurity.TLS, **wrong), "test")


async def test_a_long_session_of_groups_is_no_limit_that_librdkafka_refuses() -> None:
    await Sending(KafkaSettings(session_timeout="20m"), "test").close(0)
