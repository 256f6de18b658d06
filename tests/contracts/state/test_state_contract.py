"""What every backend of the shared memory must hold (core/ports/state)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from gatepost.core.ports.state import StateError, StateUnavailable

if TYPE_CHECKING:
    from conftest import Backend

LIMIT = 30.0


@pytest.fixture
def words(vocabulary: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**vocabulary)


async def test_what_one_edge_puts_another_reads(backend: Backend, words: Any, key: Any, eventually: Any) -> None:
    one, other = await backend.edge(), await backend.edge()
    mine = key()
    await one.put(words.notes, mine, words.note("hello", 3), words.later, LIMIT)
    for edge in (one, other):
        await eventually(lambda edge=edge: edge.get(words.notes, mine, words.now) is not None)
        assert edge.get(words.notes, mine, words.now) == words.note("hello", 3)
        assert edge.get(words.few, mine, words.now) is None, "kinds must not share keys"
        assert edge.get(words.notes, key(), words.now) is None


async def test_the_last_word_counts(backend: Backend, words: Any, key: Any, eventually: Any) -> None:
    one, other = await backend.edge(), await backend.edge()
    mine = key()
    for count in range(4):
        edge = (one, other)[count % 2]
        await edge.put(words.notes, mine, words.note("n", count), words.later, LIMIT)
    for edge in (one, other):
        await eventually(lambda edge=edge: edge.get(words.notes, mine, words.now) == words.note("n", 3))
        assert edge.size(words.notes) == 1


async def test_entries_expire_by_the_readers_time(backend: Backend, words: Any, key: Any, eventually: Any) -> None:
    edge = await backend.edge()
    mine = key()
    await edge.put(words.notes, mine, words.note("short"), words.later, LIMIT)
    await eventually(lambda: edge.get(words.notes, mine, words.later - 1) is not None)
    assert edge.get(words.notes, mine, words.later) is None
    assert edge.size(words.notes) == 0, "an expired entry that was read must be dropped"


async def test_removed_is_removed_everywhere(backend: Backend, words: Any, key: Any, eventually: Any) -> None:
    one, other = await backend.edge(), await backend.edge()
    mine = key()
    await one.put(words.notes, mine, words.note("x"), words.later, LIMIT)
    await eventually(lambda: other.get(words.notes, mine, words.now) is not None)
    await other.remove(words.notes, mine, LIMIT)
    await other.remove(words.notes, key(), LIMIT)
    await eventually(lambda: one.get(words.notes, mine, words.now) is None)


async def test_put_soon_arrives_with_its_last_value(
    backend: Backend, words: Any, key: Any, eventually: Any
) -> None:
    one, other = await backend.edge(), await backend.edge()
    names = [key() for _ in range(300)]
    for count in range(2):
        for name in names:
            one.put_soon(words.notes, name, words.note("soon", count), words.later)
    await eventually(lambda: all(other.get(words.notes, name, words.now) for name in names))
    assert {other.get(words.notes, name, words.now).count for name in names} == {1}


async def test_a_put_is_not_overtaken_by_an_older_put_soon(
    backend: Backend, words: Any, key: Any, eventually: Any
) -> None:
    edge = await backend.edge()
    mine, end = key(), key()
    edge.put_soon(words.notes, mine, words.note("old"), words.later)
    await edge.put(words.notes, mine, words.note("new"), words.later, LIMIT)
    edge.put_soon(words.notes, end, words.note("end"), words.later)
    await eventually(lambda: edge.get(words.notes, end, words.now) is not None)
    assert edge.get(words.notes, mine, words.now) == words.note("new")


async def test_of_many_takes_one_has_it(backend: Backend, words: Any, key: Any, eventually: Any) -> None:
    """Two edges, several calls each, all at once: exactly one gets the entry, and then nobody has it."""
    edges = [await backend.edge(), await backend.edge()]
    for _ in range(10):
        mine = key()
        await edges[0].put(words.notes, mine, words.note("only one"), words.later, LIMIT)
        await eventually(lambda mine=mine: all(edge.get(words.notes, mine, words.now) for edge in edges))
        results = await asyncio.gather(*(edge.take(words.notes, mine, LIMIT) for edge in edges * 3))
        assert [result for result in results if result is not None] == [words.note("only one")]
        await eventually(lambda mine=mine: not any(edge.get(words.notes, mine, words.now) for edge in edges))


async def test_take_meets_what_was_put_just_before(backend: Backend, words: Any, key: Any) -> None:
    """Also when it has not come back from the log yet."""
    edge = await backend.edge()
    for _ in range(20):
        mine = key()
        await edge.put(words.notes, mine, words.note("fresh"), words.later, LIMIT)
        assert await edge.take(words.notes, mine, LIMIT) == words.note("fresh")
        assert await edge.take(words.notes, mine, LIMIT) is None


async def test_an_entry_that_was_taken_can_be_put_again(
    backend: Backend, words: Any, key: Any, eventually: Any
) -> None:
    one, other = await backend.edge(), await backend.edge()
    mine = key()
    await one.put(words.notes, mine, words.note("first"), words.later, LIMIT)
    await eventually(lambda: other.get(words.notes, mine, words.now) is not None)
    assert await other.take(words.notes, mine, LIMIT) == words.note("first")
    await other.put(words.notes, mine, words.note("second"), words.later, LIMIT)
    await eventually(lambda: one.get(words.notes, mine, words.now) == words.note("second"))
    assert await one.take(words.notes, mine, LIMIT) == words.note("second")


async def test_a_kind_is_bounded_and_forgets_the_oldest(
    backend: Backend, words: Any, key: Any, eventually: Any
) -> None:
    edge = await backend.edge()
    # In one partition the order is the log's; a full kind forgets what was read first.
    names = [key() for _ in range(words.most + 3)]
    for name in names:
        await edge.put(words.few, name, words.note(name), words.later, LIMIT)
        await eventually(lambda name=name: edge.get(words.few, name, words.now) is not None)
    assert edge.size(words.few) == words.most
    assert [name for name in names if edge.get(words.few, name, words.now)] == names[3:]


async def test_changes_are_told_for_each_kind(backend: Backend, words: Any, key: Any, eventually: Any) -> None:
    one, other = await backend.edge(), await backend.edge()
    before, mine = key(), key()
    await one.put(words.notes, before, words.note("before"), words.later, LIMIT)
    await eventually(lambda: other.get(words.notes, before, words.now) is not None)
    heard: list[tuple[str, Any]] = []
    other.on_change(words.notes, lambda name, value: heard.append((name, value)))
    assert heard == [(before, words.note("before"))], "what is there is told at once"
    await one.put(words.few, key(), words.note("another kind"), words.later, LIMIT)
    await one.put(words.notes, mine, words.note("now"), words.later, LIMIT)
    await eventually(lambda: len(heard) == 2)
    await one.remove(words.notes, mine, LIMIT)
    await eventually(lambda: len(heard) == 3)
    assert heard[1:] == [(mine, words.note("now")), (mine, None)]


async def test_a_callback_that_fails_harms_nobody(backend: Backend, words: Any, key: Any, eventually: Any) -> None:
    edge = await backend.edge()
    heard: list[str] = []

    def explode(name: str, value: Any) -> None:
        raise RuntimeError(name)

    edge.on_change(words.notes, explode)
    edge.on_change(words.notes, lambda name, value: heard.append(name))
    mine = key()
    await edge.put(words.notes, mine, words.note("x"), words.later, LIMIT)
    await eventually(lambda: heard == [mine])


async def test_away_is_told_and_over_by_itself(backend: Backend, words: Any, key: Any, eventually: Any) -> None:
    """Reading goes on from memory meanwhile; what was put_soon arrives afterwards."""
    one, other = await backend.edge(), await backend.edge()
    mine, new = key(), key()
    await one.put(words.notes, mine, words.note("known"), words.later, LIMIT)
    await eventually(lambda: other.get(words.notes, mine, words.now) is not None)
    await backend.take_away()
    try:
        with pytest.raises(StateError):
            await one.put(words.notes, key(), words.note("lost"), words.later, 0.3)
        with pytest.raises(StateError):
            await one.take(words.notes, mine, 0.3)
        assert other.get(words.notes, mine, words.now) == words.note("known")
    finally:
        await backend.restore()
    await eventually(lambda: _quietly(one.put_soon, words.notes, new, words.note("after"), words.later))
    await eventually(lambda: other.get(words.notes, new, words.now) is not None)


async def test_limits_of_keys_and_values(backend: Backend, words: Any) -> None:
    edge = await backend.edge()
    for bad in ("", "k" * 513):
        with pytest.raises(ValueError, match="characters"):
            await edge.put(words.notes, bad, words.note("x"), words.later, LIMIT)
    with pytest.raises(ValueError, match="bytes"):
        edge.put_soon(words.notes, "k", words.note("x" * 4096), words.later)


async def test_unavailable_changes_nothing(backend: Backend, words: Any, key: Any, eventually: Any) -> None:
    """What was refused for certain is not there afterwards."""
    edge = await backend.edge()
    mine, end = key(), key()
    await backend.take_away()
    certain = False
    try:
        await edge.put(words.notes, mine, words.note("refused"), words.later, 0.3)
    except StateUnavailable:
        certain = True
    except StateError:
        pass
    finally:
        await backend.restore()
    await eventually(lambda: _quietly(edge.put_soon, words.notes, end, words.note("end"), words.later))
    await eventually(lambda: edge.get(words.notes, end, words.now) is not None)
    assert not (certain and edge.get(words.notes, mine, words.now))


def _quietly(function: Any, *arguments: Any) -> bool:
    function(*arguments)
    return True


async def test_an_edge_says_when_it_knows_what_was_there(
    backend: Backend, words: Any, key: Any, eventually: Any
) -> None:
    one, mine = await backend.edge(), key()
    await one.put(words.notes, mine, words.note("hello"), words.later, LIMIT)
    other = await backend.edge()
    await eventually(lambda: other.current)
    assert other.get(words.notes, mine, words.now) == words.note("hello")
