"""A record that stays unfinished pins neither its partition's commit nor the window, and is never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from gatepost.core.envelope import Deferral
from gatepost.core.ids import derive_id
from gatepost.core.memory_body import MemoryBody
from gatepost.core.ports.directory import DirectoryUnavailable
from gatepost.core.ports.log import Consumer, Entry, LogUnavailable, Position, Record
from gatepost.core.records import read_item, work_entry
from gatepost.core.topics import RETRY_TIERS
from gatepost.relay.retry_reader import RetryReader
from gatepost.telemetry import metrics
from gatepost.work import loop as loop_module
from gatepost.work.hand import Hand
from gatepost.work.loop import WorkLoop
from gatepost.work.stuck import EVERYWHERE, MOVED_HEADER, Patience, appended_again, attempts_of

WAIT_S = 10.0
SOON = Patience(waits_s=0.05, tries=3, retry_s=0.01)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short delays; and tracebacks are not printed, which would take longer than all else."""
    monkeypatch.setattr(loop_module, "FIRST_DELAY_S", 0.02)
    with capture_logs():
        yield


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.01)


class Work:
    """Handles records of `relay` by what their values say; `away` is what is not there for b"waits"."""

    def __init__(self, world: Any, **more: Any) -> None:
        self.world, self.topic = world, world.topics.relay
        self.away, self.done, self.calls = True, list[bytes](), 0
        options = {"patience": SOON, **more}
        self.loop = WorkLoop(more.pop("log", world.log), self.topic, "g", self.handle, world.quarantine, **options)

    async def handle(self, consumer: Consumer, records: Sequence[Record]) -> None:
        for record in records:
            self.calls += 1
            await self.one(consumer, record)

    async def one(self, consumer: Consumer, record: Record) -> None:
        async def step() -> None:
            if record.value == b"waits" and self.away:
                raise DirectoryUnavailable("for the test")

        if record.value == b"bad" and self.away:
            raise RuntimeError("a fault of ours")
        if record.value == b"hangs" and self.away:
            await asyncio.Event().wait()
        if await self.loop.patiently(consumer, record, step, "test.waits"):
            self.done.append(record.value)
            consumer.finish(record)

    async def put(self, *values: bytes) -> None:
        for value in values:
            await self.world.log.append(Entry(self.topic, value, b"key", (("h", b"1"),), partition=0), WAIT_S)

    async def position(self) -> int:
        return int((await self.world.log.committed(self.topic, "g")).get(0, 0))


async def test_what_waits_too_long_goes_to_the_end_and_the_commit_goes_on(world: Any, running: Any) -> None:
    """Fails without _moved_to_the_end: the first record would keep the position at 0."""
    work = Work(world)
    await work.put(b"waits", b"1", b"2")
    async with running(work.loop):
        await until(lambda: len(work.done) == 2)

        async def past() -> bool:
            return await work.position() >= 3

        await until(past)
        work.away = False
        await until(lambda: b"waits" in work.done)
    records = [record for record in await world.all(work.topic) if record.value == b"waits"]
    assert [attempts_of(record) for record in records] == list(range(len(records)))
    assert len(records) >= 2
    assert {(record.key, record.header("h")) for record in records} == {(b"key", b"1")}
    assert work.done.count(b"waits") == 1
    assert await world.all(world.topics.quarantine) == []


async def test_each_move_is_waited_for_longer(world: Any, running: Any) -> None:
    """An outage of hours must not become a busy loop: fails when the count in the header has no effect."""
    work = Work(world, patience=Patience(waits_s=0.3))
    await world.log.append(
        Entry(work.topic, b"waits", None, ((MOVED_HEADER, b"5"),), partition=0), WAIT_S
    )  # would wait 1.8 s
    await work.put(b"waits")
    async with running(work.loop):

        async def moved() -> bool:
            return len(await world.all(work.topic)) > 2

        await until(moved)
        (_, _, again, *_) = await world.all(work.topic)
    assert attempts_of(again) == 1


def test_a_count_that_is_none_is_zero() -> None:
    record = Record("t", 0, 0, 0, None, b"", ((MOVED_HEADER, b"many"), ("a", b"b")))
    assert attempts_of(record) == 0
    assert appended_again(record).headers == (("a", b"b"), (MOVED_HEADER, b"1"))


async def test_a_hand_full_of_waiting_records_lets_others_through(world: Any, running: Any) -> None:
    """Fails without the move: four that wait would fill the hand for as long as the directory is away."""
    work = Work(world, in_hand=4)
    await work.put(*[b"waits"] * 4, b"through")
    async with running(work.loop):
        await until(lambda: work.done == [b"through"])
        work.away = False
        await until(lambda: work.done.count(b"waits") == 4)
    assert sorted(work.done) == [b"through", *[b"waits"] * 4]


async def test_nothing_is_finished_when_it_cannot_be_moved(world: Any, running: Any) -> None:
    """The log takes no append: the record stays where it is, unfinished, and is done when all is back."""

    class Refuses:
        refused = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(world.log, name)

        async def append(self, entry: Entry, limit: float) -> Position:
            self.refused += 1
            raise LogUnavailable("for the test")

    log = Refuses()
    work = Work(world)
    work.loop.log = log  # type: ignore[assignment]
    await work.put(b"waits", b"1")
    async with running(work.loop):
        await until(lambda: log.refused >= 2)
        assert await work.position() == 0
        work.away = False
        await until(lambda: sorted(work.done) == [b"1", b"waits"])
    assert len(await world.all(work.topic)) == 2


async def test_outputs_that_wait_for_the_log_are_never_moved(world: Any, running: Any) -> None:
    """What was sent already must not be sent again. Fails when persist() may move its record."""
    started = asyncio.Event()

    class OutputsAway:
        away = True

        def __getattr__(self, name: str) -> Any:
            return getattr(world.log, name)

        async def append_many(self, entries: Sequence[Entry], limit: float) -> Sequence[Position]:
            started.set()
            if self.away:
                raise LogUnavailable("for the test")
            result: Sequence[Position] = await world.log.append_many(entries, limit)
            return result

    log = OutputsAway()

    async def handle(consumer: Consumer, records: Sequence[Record]) -> None:
        await loop.persist(consumer, records[0], [Entry(world.topics.events, b"out")])

    loop = WorkLoop(log, world.topics.relay, "g", handle, world.quarantine, patience=SOON)  # type: ignore[arg-type]
    await world.log.append(Entry(world.topics.relay, b"x", partition=0), WAIT_S)
    async with running(loop):
        await started.wait()
        await asyncio.sleep(SOON.waits_s * 4)
        log.away = False
        await world.finished(world.topics.relay, "g", 1)
    assert len(await world.all(world.topics.relay)) == 1
    assert len(await world.all(world.topics.events)) == 1


async def test_a_poisoned_record_goes_to_quarantine_with_its_reason(world: Any, running: Any) -> None:
    """Fails without tries in _guarded: it would be tried for ever, and pin the commit."""
    work = Work(world, batch=10)
    await work.put(b"1", b"bad", b"2")
    async with running(work.loop):
        await until(lambda: len(work.done) == 2)

        async def past() -> bool:
            return await work.position() == 3

        await until(past)
    (record,) = await world.all(world.topics.quarantine)
    assert record.value == b"bad"
    assert record.key == b"key"
    assert record.header("h") == b"1"
    assert record.header("reason") == b"handling it failed 3 times: RuntimeError: a fault of ours"


async def test_a_handler_that_hangs_is_cancelled_and_its_record_quarantined(world: Any, running: Any) -> None:
    work = Work(world, patience=Patience(tries=2, retry_s=0.01, hangs_s=0.05))
    await work.put(b"hangs", b"1")
    async with running(work.loop):
        await world.finished(work.topic, "g", 2)
    (record,) = await world.all(world.topics.quarantine)
    assert record.value == b"hangs"
    assert b"TimeoutError" in record.header("reason")


async def test_a_fault_of_everything_quarantines_nothing(world: Any, running: Any) -> None:
    """A bad release must not turn the whole queue into quarantined mail. Fails without Faults.everywhere."""
    work = Work(world)
    await work.put(*[b"bad"] * (EVERYWHERE + 5))
    async with running(work.loop):
        await until(lambda: work.calls > (EVERYWHERE + 5) * (SOON.tries + 1))
        assert await world.all(world.topics.quarantine) == []
        work.away = False  # the good release
        await until(lambda: len(work.done) == EVERYWHERE + 5)
    assert await world.all(world.topics.quarantine) == []


async def test_a_fault_in_quarantining_loses_nothing(world: Any, running: Any) -> None:
    class Broken:
        calls = 0

        async def entry(self, record: Record, reason: str) -> Entry:
            self.calls += 1
            if self.calls < 3:
                raise RuntimeError("a fault here, too")
            made: Entry = await world.quarantine.entry(record, reason)
            return made

    work = Work(world)
    work.loop._quarantine = Broken()  # type: ignore[assignment]
    await work.put(b"bad", b"1")
    async with running(work.loop):
        await world.finished(work.topic, "g", 2)
    assert [record.value for record in await world.all(world.topics.quarantine)] == [b"bad"]


async def test_only_one_of_two_handlers_of_a_record_may_move_it(world: Any) -> None:
    """A partition that was lost and came back has its records given twice. Fails without claim()."""
    await world.log.append(Entry(world.topics.relay, b"x", partition=0), WAIT_S)
    hand = Hand(world.log.consumer(world.topics.relay, "g", window=10))
    await hand.start()
    (record,) = await hand.fetch(WAIT_S)
    assert hand.claim(record)
    assert not hand.claim(record)
    hand.unclaim(record)
    assert hand.claim(record)
    hand.finish(record)
    assert not hand.claim(record)
    await hand.close()


async def test_the_routers_record_keeps_its_ids_when_it_was_moved(
    world: Any, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same copies come of it, with a body by reference too: G3 holds over a move."""
    body = MemoryBody(b"Subject: x\r\n\r\n" + b"x" * 100_000)
    reference = await world.content.write("one", body, WAIT_S)
    sent = world.envelope("ann@a.example", content=reference, sha256=body.sha256, size=body.size)
    await world.log.append(work_entry(world.topics.accepted, sent, b"", None), WAIT_S)
    world.users.away = True
    monkeypatch.setattr(loop_module, "Patience", lambda: SOON)
    async with running(world.router()):

        async def moved() -> bool:
            return len(await world.all(world.topics.accepted)) >= 2

        await until(moved)
        world.users.away = False
        (item,) = await world.some(world.topics.mailbox("local"), 1)
        await until(lambda: bool(world.told.kinds()))
    assert item.envelope.id == derive_id(sent.id, "ann@a.example", "store")
    assert item.envelope.content == reference
    assert len(await world.items(world.topics.mailbox("local"))) == 1


# -- the retry tiers' readers: they wait on purpose


async def test_due_records_of_one_partition_do_not_wait_for_those_of_another(world: Any, running: Any) -> None:
    """Fails with a limit on the hand that one partition's waiting records fill: hours of delay after a restart."""
    topic, back = world.topics.retry("4h"), world.topics.relay
    deferral = Deferral(attempts=1, first_ms=world.now, return_topic=back)

    async def put(name: str, partition: int, at_ms: int) -> str:
        world.log._clock = lambda: at_ms / 1000
        envelope = world.envelope(f"{name}@b.example", deferral=deferral)
        entry = work_entry(topic, envelope, b"x", None)
        await world.log.append(Entry(topic, entry.value, None, entry.headers, partition=partition), WAIT_S)
        return str(envelope.id)

    for number in range(500):
        await put(f"u{number}", 0, world.now)
    async with running(RetryReader(world.log, world.topics, world.quarantine, world.now_ms)):
        await until(lambda: metrics.LOG_UNFINISHED.current().get((topic,), 0) >= 20)
        due = await put("due", 1, world.now - RETRY_TIERS["4h"] * 1000)
        (item,) = await world.some(back, 1)
    assert item.envelope.id == due


async def test_an_unusable_deferred_record_is_quarantined_and_does_not_hold_up_its_tier(
    world: Any, running: Any
) -> None:
    topic = world.topics.retry("1m")
    await world.log.append(Entry(topic, b"no envelope", partition=0), WAIT_S)
    entry = work_entry(topic, world.envelope("x@b.example"), b"no way back", None)
    await world.log.append(Entry(topic, entry.value, None, entry.headers, partition=0), WAIT_S)
    world.now += 10_000_000_000  # the memory log stamps records with the real time
    async with running(RetryReader(world.log, world.topics, world.quarantine, world.now_ms)):
        await world.finished(topic, world.topics.group("retry.1m"), 2)
    reasons = [record.header("reason") for record in await world.all(world.topics.quarantine)]
    assert sorted(reasons) == [b"a deferred copy does not say where it returns to", b"the record has no envelope"]
    assert [read_item(r).inline for r in await world.all(world.topics.quarantine) if r.header("envelope")] == [
        b"no way back"
    ]
