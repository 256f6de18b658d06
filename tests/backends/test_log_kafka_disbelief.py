"""A broker that stood still goes on as the leader and lacks what was written meanwhile: it is not believed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from gatepost.backends.log_kafka import reading
from gatepost.backends.log_kafka.connection import Connection
from gatepost.backends.log_kafka.consumer import KafkaConsumer
from gatepost.backends.log_kafka.disbelief import Disbelief
from gatepost.backends.log_kafka.follower import KafkaFollower
from gatepost.backends.log_kafka.share import Share
from gatepost.core.completion import Commit
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.ports.log import LogGap, LogUnavailable

PLACE = TopicPartition("mail", 0)
OUT_OF_RANGE = 1
START, OLD_END, END = 5, 10, 20
OLD, NEW = 1, 2


class Cluster:
    """What a Connection asks of two brokers: the old leader ends at OLD_END, the new one at END.

    Metadata name the old leader for so many questions more.
    """

    def __init__(self, stale: int) -> None:
        self.stale = stale
        self.asked: list[int] = []
        self.client = self

    async def call(self, what: str, limit: float, work: Callable[[], Awaitable[Any]]) -> Any:
        return await work()

    async def leader(self, place: TopicPartition) -> int:
        return OLD if self.stale > 0 else NEW

    def force_metadata_update(self) -> None:
        self.stale -= 1

    async def send(self, node: int, request: Any) -> Any:
        end = OLD_END if node == OLD else END
        if not isinstance(request, FetchRequest):  # ListOffsets
            ((_, ((number, moment),)),) = request._topics
            return SimpleNamespace(topics=[("mail", [(number, 0, -1, START if moment == -2 else end)])])
        self.asked.append(node)
        ((_, ((number, offset, _),)),) = request._topics
        if not START <= offset <= end:
            return SimpleNamespace(topics=[("mail", [(number, OUT_OF_RANGE, -1, b"")])])
        return SimpleNamespace(topics=[("mail", [(number, 0, end, batch(end) if offset < end else b"")])])


def batch(end: int) -> bytes:
    """The records from 0 up to an end; whoever reads passes over those that it did not ask for."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for offset in range(end):
        builder.append(offset, 1_000, None, b"%d" % offset, [])
    return bytes(builder.build())


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("reading", "consumer", "follower"):
        monkeypatch.setattr(f"gatepost.backends.log_kafka.{module}.BACKOFF_SECONDS", 0.001)
    patience(monkeypatch, 3600)


def patience(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr("gatepost.backends.log_kafka.disbelief.PATIENCE_SECONDS", seconds)


async def read(cluster: Cluster, *offsets: int, limit: float = 60) -> list[bytes]:
    found = await reading.read(cast(Connection, cluster), "mail", 0, offsets, limit)
    return [record.value for record in found]


@pytest.mark.parametrize("offset", [OLD_END, OLD_END + 1, END - 1])
async def test_what_the_old_leader_lacks_is_read_from_the_new_one(offset: int) -> None:
    """At its end it says nothing, beyond its end that there is no such offset."""
    cluster = Cluster(stale=7)
    assert await read(cluster, offset) == [b"%d" % offset]
    assert cluster.asked[0] == OLD
    assert cluster.asked[-1] == NEW


async def test_what_it_has_is_read_at_once() -> None:
    cluster = Cluster(stale=7)
    assert await read(cluster, 6, 7, 9) == [b"6", b"7", b"9"]
    assert set(cluster.asked) == {OLD}


async def test_what_lies_below_the_start_is_gone_at_once() -> None:
    """The start of a partition only ever moves on, whoever tells it."""
    cluster = Cluster(stale=7)
    with pytest.raises(LogGap, match="no record at offset 4"):
        await read(cluster, 4)
    assert cluster.asked == [OLD]


@pytest.mark.parametrize("offset", [END, END + 1])
async def test_what_every_leader_lacks_is_gone_in_the_end(monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    patience(monkeypatch, 0.05)
    cluster = Cluster(stale=2)
    with pytest.raises(LogGap, match=f"no record at offset {offset}"):
        await read(cluster, offset)
    assert NEW in cluster.asked


@pytest.mark.parametrize("offset", [END, END + 1])
async def test_within_a_shorter_limit_nothing_is_decided(offset: int) -> None:
    with pytest.raises(LogUnavailable, match=f"does not have offset {offset} yet"):
        await read(Cluster(stale=2), offset, limit=0.05)


async def test_only_what_is_said_without_a_break_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour ago another broker may have stood still; nothing was read since, for nothing came."""
    patience(monkeypatch, 5)
    disbelief = Disbelief(cast(Connection, Cluster(stale=0)))
    times = iter((100.0, 3700.0, 3704.0, 3705.0))
    disbelief._loop = cast(Any, SimpleNamespace(time=lambda: next(times)))
    assert [disbelief.lacking(PLACE) for _ in range(4)] == [False, False, False, True]


def consumer(cluster: Cluster, position: int) -> tuple[KafkaConsumer, Share]:
    """One that owns the partition and has been told that its next offset is out of range."""
    made = KafkaConsumer(cast(Connection, cluster), KafkaSettings(("127.0.0.1:1",)), "test", "mail", "group", 10)
    share = made._shares[0] = Share("mail", 0)
    share.begin(Commit(position))
    made._member = cast(Any, SimpleNamespace(look_again=cluster.force_metadata_update))
    return made, share


@pytest.mark.parametrize("position", [OLD_END + 1, END])
async def test_a_consumer_waits_for_a_leader_that_has_it(position: int) -> None:
    cluster = Cluster(stale=7)
    reader, share = consumer(cluster, position)
    for _ in range(10):
        await reader._read_failed(OffsetOutOfRangeError({PLACE: position}))
        assert share.wants_more
    assert await cluster.leader(PLACE) == NEW


@pytest.mark.parametrize(("position", "seconds"), [(START - 1, 3600.0), (END + 1, 0.0)])
async def test_a_consumer_tells_a_gap_that_is_certain(
    monkeypatch: pytest.MonkeyPatch, position: int, seconds: float
) -> None:
    patience(monkeypatch, seconds)
    reader, share = consumer(Cluster(stale=0), position)
    await reader._read_failed(OffsetOutOfRangeError({PLACE: position}))
    assert f"is at offset {position}, but what is there begins at 5 and ends before 20" in share.gap
    assert not share.wants_more


async def test_a_consumer_decides_nothing_while_the_cluster_is_away() -> None:
    cluster = Cluster(stale=0)
    reader, share = consumer(cluster, END + 1)

    async def away(*_: Any) -> Any:
        raise LogUnavailable("away")

    cluster.call = away  # type: ignore[method-assign]
    await reader._read_failed(OffsetOutOfRangeError({PLACE: END + 1}))
    assert share.wants_more


class Client:
    """A follower's, which is at `position` and hears that this is out of range unless there are records."""

    def __init__(self, cluster: Cluster, position: int) -> None:
        self.cluster, self.position, self._client = cluster, position, cluster

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        end = OLD_END if await self.cluster.leader(PLACE) == OLD else END
        if not START <= self.position <= end:
            raise OffsetOutOfRangeError({PLACE: self.position})
        values = range(self.position, end)
        self.position = end
        record = {"timestamp": 1, "key": None, "value": b"", "headers": ()}
        return {PLACE: [SimpleNamespace(offset=offset, **record) for offset in values]}

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.position = offset


@pytest.mark.parametrize(
    ("position", "seconds", "first"),
    [
        (OLD_END + 5, 3600.0, OLD_END + 5),  # nothing is given twice
        (START - 3, 3600.0, START),  # what has expired is not missed
        (END + 5, 0.0, START),  # a log that has lost its end is read anew
    ],
)
async def test_a_follower_reads_on(
    monkeypatch: pytest.MonkeyPatch, position: int, seconds: float, first: int
) -> None:
    patience(monkeypatch, seconds)
    cluster = Cluster(stale=3)
    follower = KafkaFollower(
        cast(Connection, cluster), KafkaSettings(("127.0.0.1:1",)), "test", "mail", since_ms=None
    )
    follower._client = cast(Any, Client(cluster, position))

    async def same_topic() -> None:
        return None

    monkeypatch.setattr(follower, "_check_topic", same_topic)
    records = await follower.fetch(20)
    assert records[0].offset == first
