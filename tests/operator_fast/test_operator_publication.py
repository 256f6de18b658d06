"""What stands in the config topic: epochs, repairs, and publishing that failed half-way."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gatepost.backends.config_log import ConfigurationPublisher
from gatepost.backends.log_memory import MemoryLog
from gatepost.core.config_head import head_key, part_key
from gatepost.core.configuration import CLOSED, Configuration, DeliveryPlan, DomainConfig
from gatepost.core.ports.log import Entry, LogUnavailable
from gatepost.core.topics import Topics
from gatepost_operator.cluster import ClusterRefused
from gatepost_operator.cluster_memory import MemoryCluster
from gatepost_operator.compilation import Compilation
from gatepost_operator.lease import LeaseKeeper
from gatepost_operator.publication import VERIFY_S, Publication

TOPICS = Topics()


def compiled(*names: str, objects: str = "") -> Compilation:
    domains = tuple(DomainConfig(f"{name}.test", "", 1, "Any", DeliveryPlan("Discard")) for name in names)
    configuration = Configuration(1, domains, (), {f"MailDomain/default/{name}": 1 for name in objects})
    return Compilation(configuration, configuration.hash, {})


class Bench:
    def __init__(self) -> None:
        self.now = 0.0
        self.log = MemoryLog()
        self.cluster = MemoryCluster()
        self.lease = LeaseKeeper(
            self.cluster, "default", "lease", "me", monotonic=lambda: self.now, now=lambda: "now"
        )
        self.publication = Publication(self.cluster, self.lease, lambda: self.now)

    async def start(self) -> None:
        await self.log.start()
        await self.log.ensure_topics([spec for spec in TOPICS.specs((), 1) if spec.name == TOPICS.config])
        await self.lease.step()
        self.publication.connect(ConfigurationPublisher(self.log, TOPICS, "log-1"))

    async def pass_time(self, seconds: float) -> None:
        self.now += seconds
        await self.lease.step()

    async def stands(self) -> tuple[int, int, set[str]] | None:
        """Epoch, generation and domains as a reader that begins now finds them."""
        reader = ConfigurationPublisher(self.log, TOPICS, "reader")
        head = await reader.load()
        configuration = reader.configuration()
        if head is None or configuration is None:
            return None
        return head.epoch, head.generation, {domain.domain for domain in configuration.domains}

    async def write(self, key: bytes, value: bytes | None) -> None:
        await self.log.append(Entry(TOPICS.config, value, key), 1.0)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.start()
    yield made
    await made.log.close()


async def test_only_a_change_is_published(bench: Bench) -> None:
    for _ in range(3):
        await bench.publication.step(compiled("a"))
    assert await bench.stands() == (1, 1, {"a.test"})
    await bench.publication.step(compiled("a", "b"))
    assert await bench.stands() == (1, 2, {"a.test", "b.test"})


async def test_what_no_head_names_is_removed(bench: Bench) -> None:
    for names in ("a", "ab", "abc"):
        await bench.publication.step(compiled(*names))
    keys = [record.key for record in bench.log.records(TOPICS.config) if record.value]
    assert [key for key in keys if key and key.startswith(b"head/")] == [head_key(1)]
    assert len(keys) == 2


async def test_an_epoch_begins_above_what_stands_there(bench: Bench) -> None:
    foreign = ConfigurationPublisher(bench.log, TOPICS, "log-1")
    await foreign.load()
    await foreign.publish(CLOSED, 41, 7)
    await bench.publication.step(compiled("a"))
    assert await bench.stands() == (42, 8, {"a.test"})


@pytest.mark.parametrize("lost", ["head", "part"])
async def test_what_was_lost_from_the_topic_is_published_again(bench: Bench, lost: str) -> None:
    await bench.publication.step(compiled("a"))
    records = [record for record in bench.log.records(TOPICS.config) if record.value]
    (key,) = (record.key for record in records if record.key and record.key.startswith(lost.encode()))
    await bench.write(key, None)
    assert await bench.stands() is None
    await bench.publication.step(compiled("a"))
    assert await bench.stands() is None, "it is not read back all the time"
    for _ in range(int(VERIFY_S // 8) + 1):
        await bench.pass_time(8)
    await bench.publication.step(compiled("a"))
    stands = await bench.stands()
    assert stands is not None
    assert (stands[0], stands[2]) == (1, {"a.test"})


@pytest.mark.parametrize("epoch", [1, 9])
async def test_what_somebody_else_wrote_is_replaced(bench: Bench, epoch: int) -> None:
    await bench.publication.step(compiled("a"))
    foreign = ConfigurationPublisher(bench.log, TOPICS, "log-1")
    await foreign.load()
    await foreign.publish(CLOSED, epoch, 50)
    for _ in range(int(VERIFY_S // 8) + 1):
        await bench.pass_time(8)
    await bench.publication.step(compiled("a"))
    stands = await bench.stands()
    assert stands is not None
    assert (stands[0], stands[2]) == (1 if epoch == 1 else 10, {"a.test"})


async def test_a_publication_that_failed_is_repeated(bench: Bench) -> None:
    bench.log.go_away()
    with pytest.raises(LogUnavailable):
        await bench.publication.step(compiled("a"))
    assert not bench.publication.ever
    bench.log.come_back()
    await bench.publication.step(compiled("a"))
    assert bench.publication.ever
    bench.log.go_away()
    with pytest.raises(LogUnavailable):
        await bench.publication.step(compiled("b"))
    bench.log.come_back()
    await bench.publication.step(compiled("b"))
    assert await bench.stands() == (1, 2, {"b.test"})


async def test_edges_may_run_what_was_written_without_an_answer(bench: Bench) -> None:
    """Fails without noting a configuration before its append: the edge's ack would name an unknown hash."""
    await bench.publication.step(compiled("a"))
    new = compiled("a", "b")
    publisher = bench.publication._publisher
    assert publisher is not None
    publish = publisher.publish

    async def lost(*arguments, **more):  # type: ignore[no-untyped-def]
        await publish(*arguments, **more)
        raise LogUnavailable("the answer was lost")

    publisher.publish = lost  # type: ignore[method-assign]
    with pytest.raises(LogUnavailable):
        await bench.publication.step(new)
    assert new.hash in bench.publication.known._known


async def test_without_the_lease_nothing_is_written(bench: Bench) -> None:
    await bench.publication.step(compiled("a"))
    bench.now += 30
    assert not bench.lease.held
    await bench.publication.step(compiled("a", "b"))
    assert await bench.stands() == (1, 1, {"a.test"})


async def test_a_large_configuration_goes_in_parts(bench: Bench) -> None:
    static = tuple(f"user-{number:06d}@big.test" for number in range(50_000))
    domain = DomainConfig("big.test", "", 1, "Static", DeliveryPlan("Discard"), static=static)
    configuration = Configuration(1, (domain,), ())
    await bench.publication.step(Compilation(configuration, configuration.hash, {}))
    parts = [record for record in bench.log.records(TOPICS.config) if (record.key or b"").startswith(part_key(""))]
    assert len(parts) >= 2
    assert max(len(record.value) for record in parts) <= 900 * 1024
    assert await bench.stands() == (1, 1, {"big.test"})


async def test_deletions_are_gathered_before_they_count(bench: Bench) -> None:
    """One by one they would each be small; together they are a mass removal."""
    step = bench.publication.step
    await step(compiled(*"abcd", objects="abcd"))
    for left in ("abc", "ab", "a"):
        await bench.pass_time(1.0)
        await step(compiled(*left, objects=left))
        assert bench.publication.again_s == 2.0
    await bench.pass_time(2.0)
    await step(compiled("a", objects="a"))
    assert bench.publication.removal is not None
    assert await bench.stands() == (1, 1, {f"{name}.test" for name in "abcd"})


async def test_one_deletion_is_published_when_it_is_quiet(bench: Bench) -> None:
    step = bench.publication.step
    await step(compiled(*"abc", objects="abc"))
    await step(compiled(*"ab", objects="ab"))
    assert await bench.stands() == (1, 1, {"a.test", "b.test", "c.test"})
    await bench.pass_time(bench.publication.again_s or 0.0)
    await step(compiled(*"ab", objects="ab"))
    assert await bench.stands() == (1, 2, {"a.test", "b.test"})
    assert bench.publication.again_s is None


async def test_endless_deletions_do_not_hold_up_for_ever(bench: Bench) -> None:
    names = "abcdefghijklmnopqrstuvwxyz"
    await bench.publication.step(compiled(*names, objects=names))
    for left in range(25, 13, -1):
        await bench.publication.step(compiled(*names[:left], objects=names[:left]))
        await bench.pass_time(1.0)
    assert await bench.stands() == (1, 3, {f"{name}.test" for name in names[:14]})


async def test_with_its_definition_nothing_is_removed(bench: Bench) -> None:
    """Fails when the last object of a kind is taken for deleted by a person while its definition goes."""
    await bench.publication.step(compiled("a", objects="a"))
    bench.cluster.defined = frozenset({"RelayPolicy"})
    await bench.publication.step(compiled())
    await bench.pass_time(2.0)
    with pytest.raises(ClusterRefused, match="the definition of MailDomain is gone or going: nothing is removed"):
        await bench.publication.step(compiled())
    assert await bench.stands() == (1, 1, {"a.test"})
