"""The shared memory over a log: damaged records, followers that die, changes whose outcome is not known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from gatepost.backends.log_memory import MemoryLog
from gatepost.backends.state_log import LogState
from gatepost.core.ports.log import Entry, LogUnavailable, Record
from gatepost.core.ports.state import StateUnavailable, StateUnknown, TakeUnknown
from gatepost.core.topics import Topics
from gatepost.telemetry import metrics

LIMIT = 10.0
TOPIC = Topics().state


class Faulty(MemoryLog):
    """Its followers do what the test says: `fault` is called before each fetch."""

    fault: Callable[[], None] = staticmethod(lambda: None)
    followers = 0

    def follower(self, topic: str, *, since_ms: int | None = None) -> Any:
        self.followers += 1
        real, log = super().follower(topic, since_ms=since_ms), self

        class Follower:
            start, close = staticmethod(real.start), staticmethod(real.close)

            @property
            def caught_up(self) -> bool:
                return real.caught_up

            async def fetch(self, limit: float) -> Sequence[Record]:
                log.fault()
                return await real.fetch(limit)

        return Follower()


@pytest.fixture
def words(vocabulary: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**vocabulary)


@pytest.fixture
async def log(words: Any) -> AsyncIterator[Faulty]:
    made = Faulty()
    await made.start()
    await made.ensure_topics([spec for spec in Topics().specs((), 2) if spec.name == TOPIC])
    yield made
    await made.close()


@pytest.fixture
def clock(words: Any) -> SimpleNamespace:
    return SimpleNamespace(now=words.now)


@pytest.fixture
async def make(log: Faulty, words: Any, clock: Any) -> AsyncIterator[Callable[..., Any]]:
    made: list[LogState] = []

    async def one(**options: Any) -> LogState:
        made.append(LogState(log, TOPIC, (words.notes, words.few), lambda: clock.now, **options))
        await made[-1].start()
        return made[-1]

    yield one
    log.come_back()
    log.release()
    for state in made:
        await state.close()


@pytest.mark.parametrize(
    "value",
    [
        b"no JSON",
        b"{}",
        b'{"v":1,"until":9999999999999,"data":{"count":1}}',
        b'{"v":2,"until":9999999999999,"data":{"text":"of a later version"}}',
        b'{"v":1,"until":-1,"data":{"text":"x"}}',
        b'{"v":1,"until":99999999999999999999,"data":{"text":"x"}}',
        b'{"v":1,"until":9999999999999,"data":{"text":"\xff"}}',
        b'{"v":1,"until":"soon","data":{"text":"x"}}',
    ],
)
async def test_unreadable_records_are_counted_and_passed_over(
    log: Faulty, make: Any, words: Any, eventually: Any, value: bytes
) -> None:
    state = await make()
    before = metrics.STATE_UNREADABLE.values.get(("notes",), 0)
    await log.append(Entry(TOPIC, value, b"notes/bad"), LIMIT)
    await state.put(words.notes, "good", words.note("x"), words.later, LIMIT)
    await eventually(lambda: state.get(words.notes, "good", words.now) is not None)
    await eventually(lambda: metrics.STATE_UNREADABLE.values.get(("notes",), 0) == before + 1)
    assert state.get(words.notes, "bad", words.now) is None


async def test_strange_keys_are_nobodys(log: Faulty, make: Any, words: Any, eventually: Any) -> None:
    """A kind of a later version, no kind at all, no key: none of them is ours to judge."""
    state = await make()
    good = b'{"v":1,"until":9999999999999,"data":{"text":"x"}}'
    for key in (b"unheard/of", b"notes", b"notes/", b"/x", b"\xff/\xfe"):
        await log.append(Entry(TOPIC, good, key), LIMIT)
    await log.append(Entry(TOPIC, good, None), LIMIT)
    await log.append(Entry(TOPIC, good, "notes/ü \udcff".encode("utf-8", "surrogateescape")), LIMIT)
    await eventually(lambda: state.size(words.notes) == 1)
    assert state.get(words.notes, "ü \udcff", words.now) == words.note("x")


async def test_a_dead_follower_is_replaced(log: Faulty, make: Any, words: Any, eventually: Any) -> None:
    """Whatever it dies of; the changes in between are there afterwards."""
    state = await make()
    await state.put(words.notes, "a", words.note("a"), words.later, LIMIT)
    await eventually(lambda: state.get(words.notes, "a", words.now) is not None)
    deaths: list[Exception] = [LogUnavailable("away"), RuntimeError("a bug"), TimeoutError()]

    def die() -> None:
        if deaths:
            raise deaths.pop(0)

    log.fault = die
    await log.append(Entry(TOPIC, None, b"notes/a"), LIMIT)
    await eventually(lambda: not deaths)
    await log.append(Entry(TOPIC, b'{"v":1,"until":9999999999999,"data":{"text":"b"}}', b"notes/b"), LIMIT)
    await eventually(lambda: state.get(words.notes, "b", words.now) is not None)
    await eventually(lambda: state.get(words.notes, "a", words.now) is None)
    assert log.followers >= 4


async def test_it_waits_for_its_topic(log: Faulty, words: Any, eventually: Any) -> None:
    """An edge starts before the topics are made; a missing one is no reason to stop looking."""
    state = LogState(log, "t.state", (words.notes,), lambda: words.now)
    await state.start()
    with pytest.raises(StateUnavailable):
        await state.put(words.notes, "a", words.note("a"), words.later, LIMIT)
    await log.ensure_topics([spec for spec in Topics("t.").specs((), 2) if spec.name == "t.state"])
    await state.put(words.notes, "a", words.note("a"), words.later, LIMIT)
    await eventually(lambda: state.get(words.notes, "a", words.now) is not None)
    await state.close()


async def test_the_buffer_is_bounded_and_its_losses_are_counted(
    log: Faulty, make: Any, words: Any, eventually: Any
) -> None:
    state = await make(buffer=10)
    log.go_away()
    before = metrics.STATE_LOST.values[()]
    for number in range(25):
        state.put_soon(words.notes, f"n{number}", words.note("x"), words.later)
    log.come_back()
    await eventually(lambda: state.size(words.notes) == 10)
    assert metrics.STATE_LOST.values[()] - before == 15
    assert state.get(words.notes, "n24", words.now) is not None, "the newest are kept"


async def test_close_writes_what_waits(log: Faulty, words: Any) -> None:
    state = LogState(log, TOPIC, (words.notes,), lambda: words.now)
    await state.start()
    state.put_soon(words.notes, "a", words.note("a"), words.later)
    await state.close()
    assert [record.key for record in log.records(TOPIC)] == [b"notes/a"]


async def test_close_does_not_wait_for_a_log_that_is_away(log: Faulty, words: Any) -> None:
    state = LogState(log, TOPIC, (words.notes,), lambda: words.now)
    await state.start()
    state.put_soon(words.notes, "a", words.note("a"), words.later)
    log.hold()
    before = metrics.STATE_LOST.values[()]
    async with asyncio.timeout(LIMIT):
        await state.close()
    assert metrics.STATE_LOST.values[()] == before + 1


async def test_a_take_in_doubt_that_is_written_later(log: Faulty, make: Any, words: Any, eventually: Any) -> None:
    state = await make()
    await state.put(words.notes, "a", words.note("a"), words.later, LIMIT)
    await eventually(lambda: state.get(words.notes, "a", words.now) is not None)
    log.hold()
    with pytest.raises(TakeUnknown) as caught:
        await state.take(words.notes, "a", 0.1)
    with pytest.raises(StateUnavailable):
        await state.take(words.notes, "a", 0.1)  # while the first one may still have it
    log.release()
    async with asyncio.timeout(LIMIT):
        assert await caught.value.outcome == words.note("a")
        assert await caught.value.outcome == words.note("a")
    assert await state.take(words.notes, "a", LIMIT) is None


async def test_a_take_in_doubt_that_comes_to_nothing(log: Faulty, make: Any, words: Any, eventually: Any) -> None:
    state = await make()
    await state.put(words.notes, "a", words.note("a"), words.later, LIMIT)
    await eventually(lambda: state.get(words.notes, "a", words.now) is not None)
    log.hold()
    with pytest.raises(TakeUnknown) as caught:
        await state.take(words.notes, "a", 0.1)
    log.lose_held()
    async with asyncio.timeout(LIMIT):
        with pytest.raises(StateUnavailable):
            await caught.value.outcome
    assert await state.take(words.notes, "a", LIMIT) == words.note("a")


async def test_a_take_in_doubt_at_the_end_is_unknown(log: Faulty, words: Any) -> None:
    state = LogState(log, TOPIC, (words.notes,), lambda: words.now)
    await state.start()
    log.hold()
    with pytest.raises(TakeUnknown) as caught:
        await state.take(words.notes, "a", 0.1)
    await state.close()
    with pytest.raises(StateUnknown):
        await caught.value.outcome


async def test_two_takes_of_one_edge_share_an_outcome(log: Faulty, make: Any, words: Any) -> None:
    """The second one must not append: after it the first could not be told from it."""
    state = await make()
    await state.put(words.notes, "a", words.note("a"), words.later, LIMIT)
    assert await asyncio.gather(*(state.take(words.notes, "a", LIMIT) for _ in range(5))) == [
        words.note("a"),
        *[None] * 4,
    ]


async def test_expired_entries_make_room_for_others(
    log: Faulty, make: Any, words: Any, clock: Any, eventually: Any
) -> None:
    """Those that are over go first, although nobody asks for them."""
    state = await make()
    for number in range(words.most):
        until = words.later if number == 0 else words.now + 1
        await state.put(words.few, f"old{number}", words.note("x"), until, LIMIT)
        await eventually(lambda number=number: state.size(words.few) == number + 1)
    state.get(words.few, "old0", words.now)
    await state.put(words.few, "old0", words.note("written again: it is the newest now"), words.later, LIMIT)
    clock.now += 2
    for number in range(words.most - 1):
        await state.put(words.few, f"new{number}", words.note("x"), words.later, LIMIT)
    await eventually(lambda: state.get(words.few, f"new{words.most - 2}", words.now) is not None)
    assert state.size(words.few) == words.most
    assert state.get(words.few, "old0", words.now), "a live entry was forgotten although others had expired"


async def test_reading_from_the_start_keeps_what_is_alive(
    log: Faulty, make: Any, words: Any, clock: Any, eventually: Any
) -> None:
    """The log has many entries that are over, in partitions that are read one after the other."""
    for number in range(40):
        until = words.later if number < words.most else words.now + 1
        data = b'{"v":1,"until":%d,"data":{"text":"x"}}' % until
        await log.append(Entry(TOPIC, data, b"few/n%d" % number, partition=number % 2), LIMIT)
    clock.now += 2
    state = await make()
    await state.put(words.notes, "end", words.note("x"), words.later, LIMIT)
    await eventually(lambda: state.get(words.notes, "end", words.now) is not None)
    await eventually(lambda: state.size(words.few) == words.most)
    assert all(state.get(words.few, f"n{number}", clock.now) for number in range(words.most))


async def test_a_kind_that_was_not_declared_is_an_error(make: Any, words: Any) -> None:
    state = await make()
    foreign = words.notes.__class__("foreign", words.note, 1, 1)
    with pytest.raises(KeyError):
        await state.put(foreign, "a", words.note("x"), words.later, LIMIT)
    with pytest.raises(ValueError, match="one name"):
        LogState(MemoryLog(), TOPIC, (words.notes, words.notes), lambda: words.now)
