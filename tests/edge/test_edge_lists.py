"""A list that is down is let alone for a while, so that nobody waits for it, and is tried again."""

from __future__ import annotations

import asyncio

import pytest

from gatepost.backends.resolver_table import TableResolver
from gatepost.core.client_facts import Outcome
from gatepost.edge.lists import FAILURES, REST, Lists
from gatepost.telemetry import metrics

ZONE = "bl.example"
NAME = f"1.2.0.192.{ZONE}"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def ask(lists: Lists) -> Outcome:
    return (await lists.ask(0, ZONE, "192.0.2.1", asyncio.get_running_loop().time() + 10)).outcome


@pytest.mark.parametrize("answer", [None, "127.255.255.254"], ids=["silent", "an error code"])
async def test_a_list_that_is_down_rests(answer: str | None) -> None:
    clock, resolver = Clock(), TableResolver()
    lists = Lists(resolver, clock)
    if answer is None:
        resolver.fail(NAME)
    else:
        resolver.add(NAME, "A", answer)
    resting = metrics.DNSBL.values.get((ZONE, "resting"), 0)
    for _ in range(FAILURES):
        assert not lists.resting(ZONE)
        await ask(lists)
    assert lists.resting(ZONE)
    for _ in range(3):
        assert await ask(lists) is Outcome.FAILED
    assert len(resolver.asked) == FAILURES
    assert metrics.DNSBL.values[ZONE, "resting"] == resting + 3
    # One question tries it after its rest; the others go on without it.
    clock.now += REST
    await ask(lists)
    await ask(lists)
    assert len(resolver.asked) == FAILURES + 1
    clock.now += REST
    resolver.mend()
    resolver.remove(NAME)
    resolver.add(NAME, "A", "127.0.0.2")
    assert await ask(lists) is Outcome.FOUND
    assert not lists.resting(ZONE)
    assert await ask(lists) is Outcome.FOUND


async def test_single_failures_are_no_reason_to_rest() -> None:
    clock, resolver = Clock(), TableResolver()
    lists = Lists(resolver, clock)
    for _ in range(3):
        resolver.fail(NAME)
        for _ in range(FAILURES - 1):
            assert await ask(lists) is Outcome.FAILED
        resolver.mend()
        assert await ask(lists) is Outcome.ABSENT
    assert not lists.resting(ZONE)
