"""Sharing partitions among members: evenly, few moves; and what Kafka's members tell each other for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from gatepost.backends.log_kafka.assignor import KeepingAssignor, Owned
from gatepost.backends.log_kafka.connection import Connection
from gatepost.backends.sharing import share
from gatepost.core.manifest.settings import KafkaSettings


@pytest.mark.parametrize(
    ("partitions", "owned", "expected"),
    [
        (4, [set()], [{0, 1, 2, 3}]),
        (4, [{0, 1, 2, 3}, set()], [{0, 1}, {2, 3}]),
        (5, [{0, 1}, {2, 3, 4}], [{0, 1}, {2, 3, 4}]),  # nothing moves
        (5, [{0, 1}, {2, 3}], [{0, 1, 4}, {2, 3}]),
        (2, [{0, 1}, set(), set()], [{0}, {1}, set()]),
        (0, [set()], [set()]),
        (3, [], []),
    ],
)
def test_shares(partitions: int, owned: list[set[int]], expected: list[set[int]]) -> None:
    assert list(share(partitions, [frozenset(mine) for mine in owned])) == expected


@given(st.integers(0, 40), st.lists(st.integers(0, 7), max_size=40), st.integers(1, 8))
def test_shares_are_even_and_little_moves(partitions: int, owners: list[int], members: int) -> None:
    owned = [frozenset(p for p, m in enumerate(owners[:partitions]) if m == member) for member in range(members)]
    shares = share(partitions, owned)
    assert sorted(p for mine in shares for p in mine) == list(range(partitions))
    sizes = [len(mine) for mine in shares]
    assert max(sizes) - min(sizes) <= 1
    most = -(-partitions // members)
    for before, after in zip(owned, shares, strict=True):
        # A member gives something away only when it had more than the largest share.
        assert len(before & after) >= min(len(before), most - 1)


class Cluster:
    @staticmethod
    def partitions_for_topic(topic: str) -> set[int] | None:
        return {0, 1, 2, 3} if topic == "work" else None


def member(owned: Owned | bytes) -> Any:
    data = owned if isinstance(owned, bytes) else msgspec.msgpack.encode(owned)
    return ConsumerProtocolMemberMetadata(0, ["work"], data)


def assigned(members: dict[str, Owned | bytes], topic: str = "work") -> dict[str, list[int]]:
    found = KeepingAssignor(topic).assign(Cluster(), {name: member(owned) for name, owned in members.items()})
    return {name: [p.partition for p in assignment.partitions()] for name, assignment in found.items()}


def test_members_keep_what_they_own() -> None:
    members = {"a": Owned(3, (0, 1)), "b": Owned(3, (2, 3)), "c": Owned()}
    shares = assigned(dict(members))
    assert shares["a"] in ([0, 1], [0])
    assert len(shares["c"]) == 1


def test_of_two_claims_the_later_generation_counts() -> None:
    assert assigned({"a": Owned(3, (0, 1)), "b": Owned(5, (1, 0))}) == {"a": [2, 3], "b": [0, 1]}


def test_nonsense_of_a_member_means_that_it_owns_nothing() -> None:
    assert assigned({"a": b"\xff\xff", "b": Owned(1, (3, 77, -1)), "c": b""}) == {"a": [0], "b": [1, 3], "c": [2]}


def test_a_topic_that_is_not_known_yet() -> None:
    assert assigned({"a": Owned()}, "other") == {"a": []}


def test_a_member_says_what_it_owns() -> None:
    assignor = KeepingAssignor("work")
    assignor.owned = Owned(7, (1, 3))
    metadata = assignor.metadata(["work"])
    assert msgspec.msgpack.decode(metadata.user_data, type=Owned) == Owned(7, (1, 3))


async def commits_of(answer: Any, places: list[TopicPartition] | None) -> Any:
    """What Connection.commits makes of an answer of the group's coordinator."""
    connection = Connection(KafkaSettings(), "test")

    async def coordinator(group: str) -> int:
        return 1

    async def send(node: int, request: Any) -> Any:
        return answer

    connection._admin = SimpleNamespace(find_coordinator=coordinator, _client=SimpleNamespace(send=send))
    return await connection.commits("group", places)


async def test_an_answer_that_is_only_an_error_does_not_mean_a_new_group() -> None:
    """It would begin at the start, and deliver everything again."""
    place = TopicPartition("work", 0)
    for answer in (
        SimpleNamespace(error_code=14, topics=[]),
        SimpleNamespace(error_code=0, topics=[]),
        SimpleNamespace(error_code=0, topics=[("work", [(0, -1, "", 14)])]),
        SimpleNamespace(error_code=0, topics=[("work", [(1, 5, "", 0)])]),
    ):
        with pytest.raises(KafkaError) as caught:
            await commits_of(answer, [place])
        assert caught.value.retriable
    none = SimpleNamespace(error_code=0, topics=[("work", [(0, -1, "", 0)])])
    assert await commits_of(none, [place]) == {}
    some = SimpleNamespace(error_code=0, topics=[("work", [(0, 5, "1:1,1", 0)])])
    assert await commits_of(some, [place]) == {place: OffsetAndMetadata(5, "1:1,1")}
