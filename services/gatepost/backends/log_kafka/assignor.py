"""Which member of a group gets which partitions: each says what it owns, and the leader moves as little as it can.

aiokafka's round robin deals everything anew at each rebalance, and its sticky assignor keeps its memory in the
class, so that two groups in one process spoil each other's. The rebalance itself stays Kafka's eager one: all
members stop, all get their share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from gatepost.backends.sharing import share

_VERSION: Final = 0


class Owned(msgspec.Struct, frozen=True, array_like=True):
    """What a member says of itself: the group's generation in which it got these partitions."""

    generation: int = -1
    partitions: tuple[int, ...] = ()


class KeepingAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """For groups that read one topic. One instance for each consumer, which sets `owned`."""

    name = "gatepost"

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self.owned = Owned()

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        return ConsumerProtocolMemberMetadata(_VERSION, list(topics), msgspec.msgpack.encode(self.owned))

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        count = len(cluster.partitions_for_topic(self._topic) or ())
        names = sorted(members)
        claims = _claims({name: _owned(members[name].user_data) for name in names}, count)
        shares = share(count, [claims[name] for name in names])
        return {
            name: ConsumerProtocolMemberAssignment(_VERSION, [(self._topic, sorted(mine))], b"")
            for name, mine in zip(names, shares, strict=True)
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """The consumer's listener does what there is to do."""


def _owned(data: bytes | None) -> Owned:
    try:
        return msgspec.msgpack.decode(data or b"", type=Owned)
    except msgspec.MsgspecError:
        return Owned()


def _claims(owned: Mapping[str, Owned], count: int) -> dict[str, frozenset[int]]:
    """Return what each member owns; of two that claim a partition, the one of the later generation."""
    claims: dict[str, set[int]] = {name: set() for name in owned}
    taken: set[int] = set()
    for name in sorted(owned, key=lambda name: (-owned[name].generation, name)):
        for partition in owned[name].partitions:
            if partition not in taken and 0 <= partition < count:
                taken.add(partition)
                claims[name].add(partition)
    return {name: frozenset(partitions) for name, partitions in claims.items()}
