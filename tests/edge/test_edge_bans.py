"""Who guesses recipients is slowed down, then disconnected, then banned at every edge for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gatepost.backends.state_log import LogState
from gatepost.core.bans import BAN, Ban, BanCause, client_key
from gatepost.core.checks.connection import ConnectionRules
from gatepost.core.checks.harvest import HarvestPolicy
from gatepost.core.configuration import ClientRule
from gatepost.core.manifest.settings import Role
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

NOW_MS = 1_790_000_000_000
HARVEST = HarvestPolicy(min_unknown=5, min_unknown_percent=50, window=3600.0, ban=4 * 3600.0)
OURS = (ClientRule(("127.0.0.0/8",), ("example.test",)),)
BANNED = "421 4.7.1 no mail is taken from your network for a while (ban)"


def harvest(**more: Any) -> dict[str, Any]:
    return {"harvest": HARVEST, **more}


async def guess(client: Client, times: int) -> list[str]:
    """Name unknown recipients until the connection ends."""
    await client.ask("MAIL FROM:<a@example.org>")
    replies = []
    for number in range(times):
        client.send(f"RCPT TO:<guess{number}@example.test>\r\n")
        try:
            replies.append(await client.reply())
        except (asyncio.IncompleteReadError, ConnectionError):
            break
    return replies


async def greeted(edge: Edge) -> str:
    return await (await edge.connect()).reply()


async def put(edge: Edge, network: str, cause: BanCause = BanCause.HARVEST) -> None:
    """A ban that another edge has written."""
    assert isinstance(edge.state, LogState)
    before = len(edge.server.bans._index)
    await edge.state.put(BAN, client_key(network), Ban(NOW_MS, NOW_MS + 60_000, cause), NOW_MS + 60_000, 5.0)
    await edge.until(lambda: len(edge.server.bans._index) > before)


@pytest.mark.requirement("S0-49")
@pytest.mark.requirement("S2-21")
async def test_a_dictionary_attack_ends_at_every_edge(make_edge: MakeEdge) -> None:
    """Fails without the error limit, the count of unknown recipients, or the memory that edges share."""
    one = await make_edge(**harvest(errors_before_disconnect=20))
    other = await make_edge(log=one.log, **harvest())
    made = metrics.BANS.values.get(("harvest",), 0)
    replies = await guess(await one.client(), 500)
    assert [reply[:9] for reply in replies] == ["550 5.1.1"] * 5 + ["421 4.7.1"]
    await other.until(lambda: bool(other.server.bans))
    for edge in (one, other):
        assert (await greeted(edge)).startswith(BANNED)
    assert metrics.BANS.values["harvest",] == made + 1
    (event,) = [event for event in one.events.all if event.kind == "banned"]
    assert event.facts["subject"] == "127.0.0.0/24"
    assert event.facts["reason"] == "5 of 5 recipients unknown within 3600 s"
    assert not [event for event in other.events.all if event.kind == "banned"]


async def test_the_error_limit_ends_a_session_without_a_harvest_policy(make_edge: MakeEdge) -> None:
    edge = await make_edge()
    replies = await guess(await edge.client(), 500)
    assert [reply[:9] for reply in replies] == ["550 5.1.1"] * 20 + ["421 4.7.0"]
    assert (await greeted(edge)).startswith("220")


async def test_a_large_sender_with_some_old_addresses_is_no_harvest(make_edge: MakeEdge) -> None:
    edge = await make_edge(**harvest(errors_before_disconnect=100))
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    for number in range(20):
        assert await client.code("RCPT TO:<bob@example.test>") == 250
        if number % 2:
            assert await client.code(f"RCPT TO:<left{number}@example.test>") == 550
    assert not edge.server.bans


@pytest.mark.parametrize("own", [{"relay_clients": OURS}, {"connection": ConnectionRules(allow=("127.0.0.1",))}])
async def test_own_and_allowed_clients_are_neither_counted_nor_refused(
    make_edge: MakeEdge, own: dict[str, Any]
) -> None:
    edge = await make_edge(role=Role.INTERNAL, **harvest(errors_before_disconnect=100), **own)
    replies = await guess(await edge.client(), 50)
    assert {reply[:9] for reply in replies} == {"550 5.1.1"}
    assert not edge.server.bans
    await put(edge, "127.0.0.1", BanCause.ADMINISTRATOR)
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    assert await client.code("RCPT TO:<bob@example.test>") == 250


async def test_where_a_login_is_possible_a_neighbours_ban_waits_for_it(make_edge: MakeEdge) -> None:
    edge = await make_edge(auth_enabled=True, auth_directory="people", auth_require_tls=False)
    await put(edge, "127.0.0.0/24")
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith(BANNED)
    client = await edge.client()
    assert await client.code("AUTH PLAIN AGJvYgBzZWNyZXQtYg==") == 235
    await client.ask("MAIL FROM:<bob@example.test>")
    assert await client.code("RCPT TO:<bob@example.test>") == 250
    await put(edge, "127.0.0.1", BanCause.ADMINISTRATOR)
    assert (await greeted(edge)).startswith(BANNED)


async def test_a_session_that_is_open_ends_when_the_ban_comes_and_lifting_it_lets_in(edge: Edge) -> None:
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    assert await client.code("RCPT TO:<bob@example.test>") == 250
    await put(edge, "127.0.0.1")
    assert (await client.ask("RCPT TO:<alice@example.test>")).startswith(BANNED)
    assert edge.state is not None
    await edge.state.remove(BAN, client_key("127.0.0.1"), 5.0)
    await edge.until(lambda: not edge.server.bans)
    assert (await greeted(edge)).startswith("220")


async def test_errors_are_answered_slowly_by_a_timer_alone(
    make_edge: MakeEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = await make_edge(errors_before_delay=3, error_delay=7.0)
    client = await edge.client()
    waits: list[float] = []
    session = next(iter(edge.server.sessions))
    loop = session.loop

    class Timers:
        """The session's loop; what it wants later comes at once and is noted."""

        def call_later(self, delay: float, callback: Any) -> None:
            waits.append(delay)
            loop.call_soon(callback)

        def __getattr__(self, name: str) -> Any:
            return getattr(loop, name)

    monkeypatch.setattr(session, "loop", Timers())
    assert await client.code("MAIL FROM:<a@example.org>") == 250
    slowed = metrics.SLOWED.values.get(("mx",), 0)
    for number in range(3):
        assert await client.code(f"RCPT TO:<x{number}@example.test>") == 550
    assert waits == []
    client.send(b"RCPT TO:<y@example.test>\r\nRCPT TO:<bob@example.test>\r\nNOOP\r\n")
    assert [(await client.reply())[:3] for _ in range(3)] == ["550", "250", "250"]
    assert waits == [7.0, 7.0, 7.0]
    assert session.task is None
    assert metrics.SLOWED.values["mx",] == slowed + 1


async def test_a_slowed_session_that_goes_away_leaves_nothing(make_edge: MakeEdge) -> None:
    edge = await make_edge(errors_before_delay=1, error_delay=0.05)
    client = await edge.client()
    assert await client.code("FOO") == 500
    client.send(b"NOOP\r\n" * 30)
    await edge.until(lambda: next(iter(edge.server.sessions))._scheduled)
    client.reset()
    await edge.until(lambda: not edge.server.sessions)


async def test_own_clients_are_not_slowed(make_edge: MakeEdge) -> None:
    edge = await make_edge(errors_before_delay=1, error_delay=30.0, relay_clients=OURS)
    assert len(await guess(await edge.client(), 10)) == 10


@pytest.mark.requirement("S0-50")
async def test_guesses_that_are_pipelined_unread_end_soon_and_hold_nobody_up(make_edge: MakeEdge) -> None:
    """Fails without the error limit: 5,000 recipients in one go would all be looked up and answered."""
    edge = await make_edge(errors_before_disconnect=20)
    attacker, neighbour = await edge.client(), await edge.client()
    names = b"".join(b"RCPT TO:<mark%d@example.test>\r\n" % number for number in range(5000))
    attacker.send(b"MAIL FROM:<a@example.org>\r\n" + names)
    await neighbour.begin()
    assert (await neighbour.ask("hello\r\n.")).startswith("250")
    replies = (await attacker.rest()).decode().splitlines()
    assert [line[:3] for line in replies] == ["250"] + ["550"] * 20 + ["421"]
    assert edge.events.kinds().count("refused") == 21
