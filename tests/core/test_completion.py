"""Out-of-order completion: what is committed, and that exactly the unfinished records come again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.completion import MAX_METADATA, Commit, Completion, finished_ranges


def taken(position: int, offsets: range) -> Completion:
    completion = Completion(Commit(position))
    for offset in offsets:
        assert completion.take(offset)
    return completion


def test_finished_in_order_leaves_no_metadata() -> None:
    completion = taken(7, range(7, 10))
    for offset in range(7, 10):
        assert completion.finish(offset)
    assert completion.commit() == Commit(10)
    assert completion.outstanding == 0


def test_two_three_five_of_six() -> None:
    completion = taken(1, range(1, 7))
    for offset in (5, 2, 3):
        completion.finish(offset)
    assert completion.commit() == Commit(1, "1:1,2,1,1")
    again = Completion(completion.commit())
    assert [offset for offset in range(1, 8) if again.take(offset)] == [1, 4, 6, 7]


def test_restored_ranges_stay_in_the_commit_until_they_are_passed() -> None:
    again = Completion(Commit(1, "1:1,2,1,1"))
    assert again.commit() == Commit(1, "1:1,2,1,1")
    assert again.take(1)
    assert not again.take(2)
    assert again.commit() == Commit(1, "1:1,2,1,1")
    again.finish(1)
    assert again.position == 3  # the next to read; 3 itself is finished
    assert not again.take(3)
    assert again.commit() == Commit(4, "1:1,1")


def test_holes_in_the_log_count_as_finished() -> None:
    completion = Completion(Commit(0))
    completion.take(0)
    completion.take(9)
    completion.finish(9)
    assert completion.commit() == Commit(0, "1:1,9")
    completion.finish(0)
    assert completion.commit() == Commit(10)


def test_one_slow_record_pins_the_position_but_no_memory() -> None:
    completion = taken(0, range(1))
    for offset in range(1, 50_000):
        completion.take(offset)
        completion.finish(offset)
    assert completion.outstanding == 1
    assert completion.commit() == Commit(0, "1:1,12kv")
    assert finished_ranges(completion.commit()) == [range(1, 50_000)]


def test_finishing_twice_or_what_was_never_taken_changes_nothing() -> None:
    completion = taken(0, range(2))
    assert completion.finish(1)
    before = completion.changes
    assert not completion.finish(1)
    assert not completion.finish(7)
    assert completion.changes == before


def test_an_offset_is_taken_once() -> None:
    completion = taken(3, range(3, 5))
    with pytest.raises(ValueError, match="taken before"):
        completion.take(4)


def test_what_does_not_fit_is_left_out_from_the_end() -> None:
    completion = taken(0, range(6000))
    for offset in range(1, 6000, 2):
        completion.finish(offset)
    commit = completion.commit()
    assert len(commit.metadata) <= MAX_METADATA
    ranges = finished_ranges(commit)
    assert ranges == [range(offset, offset + 1) for offset in range(1, 2 * len(ranges), 2)]
    assert len(ranges) > 1000


@pytest.mark.parametrize("metadata", ["", "no metadata", "2:1,1", "1:1,", "1:-1,2", "1:1,1,x y", "1:" + "1," * 9])
def test_foreign_metadata_means_nothing_is_finished(metadata: str) -> None:
    assert finished_ranges(Commit(5, metadata)) == ()


@given(
    start=st.integers(0, 10**9),
    count=st.integers(1, 80),
    finished=st.sets(st.integers(0, 79)),
    reread=st.integers(0, 80),
    more=st.sets(st.integers(0, 79)),
)
def test_exactly_the_unfinished_come_again(
    start: int, count: int, finished: set[int], reread: int, more: set[int]
) -> None:
    """Two owners after each other, the second one stopping anywhere; the third gets what nobody finished."""
    first = taken(start, range(start, start + count))
    done = {start + offset for offset in finished if offset < count}
    for offset in done:
        first.finish(offset)
    second = Completion(first.commit())
    given_again = [offset for offset in range(second.next, start + min(reread, count)) if second.take(offset)]
    assert not done.intersection(given_again)
    for offset in given_again:
        if offset - start in more:
            second.finish(offset)
            done.add(offset)
    commit = second.commit()
    third = Completion(commit)
    come = [offset for offset in range(third.next, start + count) if third.take(offset)]
    assert come == [offset for offset in range(start, start + count) if offset not in done]
