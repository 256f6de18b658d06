"""The Lease: one holder at a time, by a clock of one's own, and an epoch that only grows."""

from __future__ import annotations

import pytest

from gatepost_operator.cluster import ClusterConflict, ClusterUnavailable
from gatepost_operator.cluster_memory import MemoryCluster
from gatepost_operator.lease import EPOCH_ANNOTATION, LeaseKeeper, Timing
from gatepost_operator.removal import ANNOTATION

TIMING = Timing(duration=15, valid=10.0)
PLACE = ("default", "lease")


class Times:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def text(self) -> str:
        return f"2026-01-01T00:00:00.{int(self.now):06d}Z"


class Rivals:
    """Two operators with clocks of their own."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        self.clocks = Times(), Times()
        self.clocks[1].now = 5.0  # clocks need not agree
        self.a, self.b = (
            LeaseKeeper(self.cluster, *PLACE, name, monotonic=times, now=times.text, timing=TIMING)
            for name, times in zip(("a", "b"), self.clocks, strict=True)
        )

    def pass_time(self, seconds: float) -> None:
        for times in self.clocks:
            times.now += seconds

    def annotate(self, name: str, value: str) -> None:
        """As a person would, with kubectl."""
        lease = self.cluster.leases[PLACE]
        lease["metadata"]["annotations"] = {**(lease["metadata"].get("annotations") or {}), name: value}
        self.cluster.version += 1
        lease["metadata"]["resourceVersion"] = str(self.cluster.version)


@pytest.fixture
def rivals() -> Rivals:
    return Rivals()


async def test_the_first_takes_it_and_the_second_waits(rivals: Rivals) -> None:
    await rivals.a.step()
    await rivals.b.step()
    assert rivals.a.held
    assert not rivals.b.held
    spec = rivals.cluster.leases[PLACE]["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"], spec["leaseDurationSeconds"]) == ("a", 0, 15)


async def test_a_holder_that_renews_keeps_it(rivals: Rivals) -> None:
    for _ in range(10):
        await rivals.a.step()
        await rivals.b.step()
        rivals.pass_time(9)
        assert rivals.a.held
    assert not rivals.b.held


async def test_a_silent_holder_lets_go_before_another_takes_over(rivals: Rivals) -> None:
    await rivals.a.step()
    await rivals.a.claim(0)
    await rivals.b.step()
    rivals.pass_time(10.5)
    await rivals.b.step()
    assert not rivals.a.held
    assert not rivals.b.held
    rivals.pass_time(5)
    await rivals.b.step()
    assert rivals.b.held
    assert rivals.cluster.leases[PLACE]["spec"]["leaseTransitions"] == 1
    await rivals.a.step()
    assert not rivals.a.held
    assert rivals.a.epoch is None


async def test_expiry_counts_from_when_it_was_first_seen(rivals: Rivals) -> None:
    """However old the Lease is by its own times: another machine's clock is not ours."""
    await rivals.a.step()
    rivals.pass_time(1000)
    await rivals.b.step()
    assert not rivals.b.held
    rivals.pass_time(15.5)
    await rivals.b.step()
    assert rivals.b.held


async def test_an_answer_that_took_long_is_no_fresh_right(rivals: Rivals) -> None:
    """The right counts from before the request: the Lease may have been written then."""
    cluster, times = rivals.cluster, rivals.clocks[0]
    write = cluster.create_lease

    async def slow(lease):  # type: ignore[no-untyped-def]
        times.now += 11
        return await write(lease)

    cluster.create_lease = slow  # type: ignore[method-assign]
    await rivals.a.step()
    assert not rivals.a.held


async def test_each_takeover_raises_the_epoch(rivals: Rivals) -> None:
    await rivals.a.step()
    assert await rivals.a.claim(0) == 1
    await rivals.a.release()
    assert not rivals.a.held
    await rivals.b.step()
    assert rivals.b.epoch is None
    assert await rivals.b.claim(0) == 2
    assert rivals.cluster.leases[PLACE]["metadata"]["annotations"] == {EPOCH_ANNOTATION: "2"}


async def test_the_epoch_is_above_what_the_log_holds_even_when_the_lease_was_deleted(rivals: Rivals) -> None:
    await rivals.a.step()
    assert await rivals.a.claim(6) == 7
    del rivals.cluster.leases[PLACE]
    await rivals.b.step()
    assert rivals.b.held
    assert await rivals.b.claim(7) == 8
    await rivals.a.step()
    assert not rivals.a.held


async def test_an_outage_without_a_rival_costs_no_new_epoch(rivals: Rivals) -> None:
    await rivals.a.step()
    await rivals.a.claim(0)
    rivals.cluster.away = True
    with pytest.raises(ClusterUnavailable):
        await rivals.a.step()
    rivals.pass_time(60)
    assert not rivals.a.held
    rivals.cluster.away = False
    await rivals.a.step()
    assert rivals.a.held
    assert rivals.a.epoch == 1


async def test_who_lost_it_cannot_claim(rivals: Rivals) -> None:
    await rivals.a.step()
    await rivals.b.step()
    rivals.pass_time(16)
    await rivals.b.step()
    with pytest.raises(ClusterConflict):
        await rivals.a.claim(0)
    assert not rivals.a.held
    assert rivals.b.held


async def test_releasing_what_another_holds_changes_nothing(rivals: Rivals) -> None:
    await rivals.a.step()
    await rivals.b.release()
    assert rivals.cluster.leases[PLACE]["spec"]["holderIdentity"] == "a"


async def test_what_others_wrote_into_the_lease_stays(rivals: Rivals) -> None:
    await rivals.a.step()
    rivals.annotate("example.org/note", "keep me")
    rivals.cluster.leases[PLACE]["spec"]["strategy"] = "OldestEmulationVersion"
    await rivals.a.step()
    await rivals.a.claim(0)
    lease = rivals.cluster.leases[PLACE]
    assert lease["metadata"]["annotations"]["example.org/note"] == "keep me"
    assert lease["spec"]["strategy"] == "OldestEmulationVersion"


async def test_a_word_for_a_removal_is_read_and_used_up(rivals: Rivals) -> None:
    await rivals.a.step()
    assert rivals.a.allowance == 0
    rivals.annotate(ANNOTATION, "17")
    await rivals.a.step()
    assert rivals.a.allowance == 17
    await rivals.a.use_allowance()
    assert rivals.a.allowance == 0
    assert ANNOTATION not in rivals.cluster.leases[PLACE]["metadata"]["annotations"]


async def test_damaged_epochs_and_odd_leases_are_survived(rivals: Rivals) -> None:
    rivals.cluster.leases[PLACE] = {
        "metadata": {"name": PLACE[1], "namespace": PLACE[0], "resourceVersion": "1", "annotations": None}
    }
    await rivals.a.step()
    assert rivals.a.held
    rivals.annotate(EPOCH_ANNOTATION, "many")
    assert await rivals.a.claim(3) == 4
