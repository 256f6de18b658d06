"""What appends say of the cluster: one that runs into its limit stops others, unless the log has worked since."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

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
