"""The events port over a log: never blocking, counted when lost."""

from __future__ import annotations

import asyncio

import pytest

from gatepost.backends.events_log import RECORD_BYTES, EventsLog, decode_events
from gatepost.backends.log_memory import MemoryLog
from gatepost.core import event_kinds
from gatepost.core.ids import new_id
from gatepost.core.ports.events import Event
from gatepost.core.ports.log import Cleanup, TopicSpec
from gatepost.core.sampling import SAMPLED, in_sample
from gatepost.telemetry import metrics

TOPIC = TopicSpec("events", Cleanup.EXPIRE, 2, 1000)


@pytest.fixture
async def log() -> MemoryLog:
    log = MemoryLog()
    await log.start()
    await log.ensure_topics([TOPIC])
    return log


def event(number: int) -> Event:
    return Event(id=f"ID{number}", kind=event_kinds.ACCEPTED, at_ms=number, facts={"text": "line\nof \u00e9"})


def there(log: MemoryLog) -> list[Event]:
    return [event for record in log.records(TOPIC.name) for event in decode_events(record.value)]


async def test_close_writes_what_is_left_together(log: MemoryLog) -> None:
    events = EventsLog(log, TOPIC.name)
    await events.start()
    for number in range(100):
        events.emit(event(number))
    await events.close()
    assert sorted(there(log), key=lambda e: e.at_ms) == [event(number) for number in range(100)]
    assert len(log.records(TOPIC.name)) == 1
    assert events.dropped == 0


async def test_events_are_written_without_a_close(log: MemoryLog) -> None:
    events = EventsLog(log, TOPIC.name)
    written = asyncio.Event()
    log.watch(TOPIC.name, written.set)
    await events.start()
    events.emit(event(1))
    await written.wait()
    assert there(log) == [event(1)]
    written.clear()
    events.emit(event(2))
    await written.wait()
    assert there(log) in ([event(1), event(2)], [event(2), event(1)])
    await events.close()


async def test_a_full_buffer_drops_the_new_and_counts(log: MemoryLog) -> None:
    counted = metrics.EVENTS_DROPPED.values[()]
    events = EventsLog(log, TOPIC.name, buffer=10)
    for number in range(15):
        events.emit(event(number))
    assert events.dropped == 5
    await events.start()
    await events.close()
    assert metrics.EVENTS_DROPPED.values[()] - counted == 5
    assert there(log) == [event(number) for number in range(10)]


async def test_an_event_too_large_for_a_record_is_dropped(log: MemoryLog) -> None:
    events = EventsLog(log, TOPIC.name)
    await events.start()
    events.emit(Event(id="ID", kind="accepted", at_ms=1, facts={"text": "x" * RECORD_BYTES}))
    for number in range(4):
        events.emit(Event(id=f"{number}", kind="accepted", at_ms=1, facts={"text": "x" * (RECORD_BYTES // 2)}))
    await events.close()
    assert sorted(e.id for e in there(log)) == ["0", "1", "2", "3"]
    assert all(len(record.value) <= RECORD_BYTES for record in log.records(TOPIC.name))
    assert events.dropped == 1


async def test_events_wait_for_a_log_that_is_away(log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatepost.backends.events_log._RETRY_SECONDS", 0.01)
    events = EventsLog(log, TOPIC.name)
    written = asyncio.Event()
    log.watch(TOPIC.name, lambda: written.set() if log.records(TOPIC.name) else None)
    log.go_away()
    await events.start()
    for number in range(300):
        events.emit(event(number))
    log.come_back()
    await written.wait()
    await events.close()
    assert sorted(there(log), key=lambda e: e.at_ms) == [event(number) for number in range(300)]


async def test_close_gives_up_and_counts_while_the_log_is_away(log: MemoryLog) -> None:
    events = EventsLog(log, TOPIC.name)
    await events.start()
    log.go_away()
    events.emit(event(1))
    await events.close()
    assert events.dropped == 1
    events.emit(event(2))
    assert events.dropped == 2


async def test_close_does_not_wait_for_an_append_that_hangs(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatepost.backends.events_log.CLOSE_SECONDS", 0.05)
    events = EventsLog(log, TOPIC.name)
    await events.start()
    log.hold()
    events.emit(event(1))
    await events.close()
    assert events.dropped == 1


@pytest.mark.parametrize("share", [0.0, 0.25])
async def test_what_went_well_is_sampled_by_message_and_the_rest_always_written(
    log: MemoryLog, share: float
) -> None:
    messages = [new_id(moment) for moment in range(200)]
    events = EventsLog(log, TOPIC.name, share=share)
    await events.start()
    for message in messages:
        for kind in event_kinds.MEANING:
            events.emit(Event(message, kind, at_ms=1))
    await events.close()
    found = {(event.id, event.kind) for event in there(log)}
    sample = {message for message in messages if in_sample(message, share)}
    expected = {
        (message, kind)
        for message in messages
        for kind in event_kinds.MEANING
        if kind not in SAMPLED or message in sample
    }
    assert found == expected
    assert events.dropped == 0
