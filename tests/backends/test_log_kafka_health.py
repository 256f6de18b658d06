"""What appends say of the cluster: one that runs into its limit stops others, unless the log has worked since."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from gatepost.backends.log_kafka import health as module
from gatepost.backends.log_kafka.health import PAUSE, Health


class Time:
    """The loop's clock, as a test says."""

    def __init__(self, health: Health) -> None:
        self.now = 100.0
        health._loop = cast(asyncio.AbstractEventLoop, self)

    def time(self) -> float:
        return self.now


@pytest.fixture
async def health() -> Health:
    return Health(cast(Any, None))


async def test_an_append_without_an_answer_stops_others_for_a_while(health: Health) -> None:
    clock = Time(health)
    health.succeeded()
    clock.now += 9
    health.doubted("accepted", 0, 100.5)
    assert not health.available
    clock.now += PAUSE + 0.1
    assert health.available


class Cluster:
    """A connection to one broker that answers, or does not, as a test says; the probe waits for it each time."""

    def __init__(self) -> None:
        self.answer: asyncio.Queue[bool] = asyncio.Queue()

    def nodes(self) -> list[int]:
        return [1]

    async def answers(self, node: int, limit: float) -> bool:
        return await self.answer.get()


async def test_an_idle_edge_does_not_look_away_once_the_cluster_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hung in an outage runs into its limit when that is over, and nothing else was appended meanwhile."""
    monkeypatch.setattr(module, "PROBE_EVERY", 0.0)
    monkeypatch.setattr(module, "STALL", 60.0)
    cluster = Cluster()
    health = Health(cast(Any, cluster))
    loop = asyncio.get_running_loop()
    health.succeeded()
    handed_over = loop.time()
    health.start()

    async def seen(answer: bool) -> None:
        cluster.answer.put_nowait(answer)
        async with asyncio.timeout(5):
            while not cluster.answer.empty() or health._answers is not answer:
                await asyncio.sleep(0)

    await seen(answer=False)
    health.doubted("accepted", 1, handed_over)
    assert not health.available
    await seen(answer=True)
    assert health.available, "what was doubted in the outage is over with it"
    health.doubted("accepted", 0, handed_over)
    assert health.available
    assert not health.usable("accepted", 0)
    health.doubted("accepted", 2, loop.time())
    assert not health.available, "an append that was begun after it says something new"
    await health.close()


async def test_a_success_ends_it(health: Health) -> None:
    clock = Time(health)
    health.doubted("accepted", 0, 99.0)
    assert not health.available
    clock.now += 1
    health.succeeded()
    assert health.available


async def test_a_straggler_of_an_outage_that_is_over_stops_only_its_partition(health: Health) -> None:
    """Appends of the outage run into their limits while others have gone through for seconds."""
    clock = Time(health)
    clock.now += 5
    health.succeeded()
    clock.now += 4
    health.doubted("accepted", 0, 100.0)
    assert health.available
    assert not health.usable("accepted", 0)
    assert health.usable("accepted", 1)
    health.settled("accepted", 0)
    assert health.usable("accepted", 0)
