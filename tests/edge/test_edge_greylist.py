"""Greylisting: who comes back, to whichever edge, is taken; whoever is known is never delayed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from gatepost.backends.state_log import LogState
from gatepost.core.checks.connection import ConnectionRules
from gatepost.core.checks.greylist import GREYLIST, GreylistPolicy
from gatepost.core.configuration import ClientRule
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import Edge, MakeEdge

POLICY = GreylistPolicy(delay=300.0)
MINUTE = 60_000


class Clock:
    """One clock for several edges."""

    def __init__(self, *edges: Edge) -> None:
        self.now_ms = 1_790_000_000_000
        for edge in edges:
            object.__setattr__(edge.server.deps, "now_ms", lambda: self.now_ms)
            assert edge.state is not None
            edge.state._now_ms = lambda: self.now_ms


async def rcpt(edge: Edge, recipient: str = "bob@example.test", sender: str = "a@example.org") -> str:
    client = await edge.client()
    assert await client.code(f"MAIL FROM:<{sender}>") == 250
    return await client.ask(f"RCPT TO:<{recipient}>")


async def remembered(edge: Edge, count: int) -> None:
    assert edge.state is not None
    await edge.until(lambda: edge.state.size(GREYLIST) >= count)  # type: ignore[union-attr]


async def current(edge: Edge) -> None:
    await edge.until(lambda: edge.state is not None and edge.state.current)


def proofs(edge: Edge, clock: Clock) -> int:
    """How many triples of the client's network have come back."""
    assert edge.state is not None
    known = edge.state.get(GREYLIST, "net:127.0.0.0/24", clock.now_ms)
    return 0 if known is None else known.proofs


async def test_who_comes_back_to_another_edge_is_taken(make_edge: MakeEdge) -> None:
    one = await make_edge(greylist=POLICY)
    other = await make_edge(log=one.log, greylist=POLICY)
    clock = Clock(one, other)
    await current(one)
    await current(other)
    counted = metrics.GREYLIST.values.get(("mx", "new"), 0)
    assert "450 4.7.1 <bob@example.test>: you have not written here before, please try again in 300 seconds" in (
        await rcpt(one)
    )
    assert metrics.GREYLIST.values["mx", "new"] == counted + 1
    await remembered(other, 1)
    clock.now_ms += 2 * MINUTE
    assert "in 180 seconds (greylist)" in await rcpt(other)
    clock.now_ms += 3 * MINUTE
    assert (await rcpt(other)).startswith("250")
    await remembered(one, 2)
    clock.now_ms += 34 * 24 * 60 * MINUTE
    assert (await rcpt(one)).startswith("250")


async def test_after_five_proofs_a_network_is_known(make_edge: MakeEdge) -> None:
    edge = await make_edge(greylist=POLICY)
    clock = Clock(edge)
    await current(edge)
    for number in range(5):
        assert (await rcpt(edge, sender=f"{'x' * (number + 1)}@far.example")).startswith("450")
        await remembered(edge, number + 1)
    clock.now_ms += 5 * MINUTE
    for number in range(5):
        assert (await rcpt(edge, sender=f"{'x' * (number + 1)}@far.example")).startswith("250")
        await edge.until(lambda number=number: proofs(edge, clock) == number + 1)  # type: ignore[misc]
    assert (await rcpt(edge, sender="stranger@new.example")).startswith("250")


async def test_a_recipient_that_does_not_exist_hears_so_at_once(make_edge: MakeEdge) -> None:
    edge = await make_edge(greylist=POLICY)
    await current(edge)
    assert (await rcpt(edge, "nobody@example.test")).startswith("550 5.1.1")
    assert (await rcpt(edge, "postmaster@example.test")).startswith("250")


@pytest.mark.parametrize(
    "own",
    [
        {"relay_clients": (ClientRule(("127.0.0.0/8",), ("example.test",)),)},
        {"connection": ConnectionRules(allow=("127.0.0.1",))},
    ],
)
async def test_own_and_allowed_clients_never_wait(make_edge: MakeEdge, own: dict[str, object]) -> None:
    edge = await make_edge(greylist=POLICY, **own)
    await current(edge)
    assert (await rcpt(edge)).startswith("250")


async def test_who_logs_in_never_waits(make_edge: MakeEdge) -> None:
    edge = await make_edge(greylist=POLICY, auth_enabled=True, auth_directory="people", auth_require_tls=False)
    await current(edge)
    client = await edge.client()
    assert await client.code("AUTH PLAIN AGJvYgBzZWNyZXQtYg==") == 235
    assert await client.code("MAIL FROM:<bob@example.test>") == 250
    assert await client.code("RCPT TO:<alice@example.test>") == 250


async def test_an_edge_that_has_not_read_the_memory_takes_mail(
    make_edge: MakeEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = await make_edge(greylist=POLICY)
    monkeypatch.setattr(LogState, "current", False)
    counted = metrics.GREYLIST.values.get(("mx", "unsure"), 0)
    assert edge.server.not_ready() is None
    assert (await rcpt(edge)).startswith("250")
    assert metrics.GREYLIST.values["mx", "unsure"] == counted + 1


async def test_without_the_policy_nothing_is_remembered(edge: Edge) -> None:
    await current(edge)
    assert (await rcpt(edge)).startswith("250")
    assert edge.state is not None
    assert edge.state.size(GREYLIST) == 0
    assert msgspec.json.encode(edge.configuration.listeners[0]).find(b"greylist") < 0
