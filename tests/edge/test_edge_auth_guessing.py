"""Passwords are guessed slowly, the guesser is banned at all edges, and the account's owner still gets in."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import pytest

from gatepost.core.bans import account_key
from gatepost.core.checks.auth_failures import AuthFailures, is_too_many
from gatepost.core.checks.harvest import Count
from gatepost.core.configuration import ClientRule
from gatepost.core.manifest.settings import Role

if TYPE_CHECKING:
    from conftest import Edge, MakeEdge

POLICY: dict[str, Any] = {
    "role": Role.SUBMISSION,
    "auth_enabled": True,
    "auth_directory": "people",
    "auth_require_tls": False,
    "auth_failures": AuthFailures(delay=0.0, most=4, window=600.0, ban=3600.0),
}
SLOW = {**POLICY, "auth_failures": AuthFailures(delay=9.0, most=4)}
OURS = (ClientRule(("127.0.0.0/8",), ("example.test",)),)


def plain(login: str, password: str) -> str:
    response = f"\0{login}\0{password}"
    return f"AUTH PLAIN {base64.b64encode(response.encode()).decode()}"


async def log_in(edge: Edge, login: str, password: str) -> str:
    return await (await edge.client()).ask(plain(login, password))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What AUTH would have waited for, in seconds; it does not wait."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds:
            found.append(seconds)

    class Asyncio:
        def __getattr__(self, name: str) -> Any:
            return sleep if name == "sleep" else getattr(asyncio, name)

    monkeypatch.setattr("gatepost.edge.login.asyncio", Asyncio())
    return found


async def test_who_guesses_passwords_is_banned_at_every_edge(make_edge: MakeEdge) -> None:
    one = await make_edge(**POLICY)
    other = await make_edge(log=one.log, **POLICY)
    for number in range(4):
        assert (await log_in(one, f"name{number}", "wrong")).startswith("535 5.7.8")
    await other.until(lambda: bool(other.server.bans))
    for edge in (one, other):
        assert (await (await edge.connect()).reply()).startswith("421 4.7.1")
    (event,) = [event for event in one.events.all if event.kind == "banned"]
    assert (event.facts["subject"], event.facts["cause"]) == ("127.0.0.1", "auth-failures")
    assert "wrong" not in str(event.facts)


async def test_an_account_is_slowed_down_and_its_owner_gets_in(make_edge: MakeEdge, waits: list[float]) -> None:
    edge = await make_edge(**SLOW, relay_clients=OURS)
    for number in range(4):
        assert waits == [9.0] * number
        assert (await log_in(edge, "alice", "wrong")).startswith("535 5.7.8")
    assert edge.server.bans.named(account_key("alice")) is not None
    waits.clear()
    assert (await log_in(edge, "bob", "secret-b")).startswith("235")
    assert waits == []
    assert (await log_in(edge, "alice", "secret-a")).startswith("235")
    assert waits == [9.0]


async def test_our_own_networks_are_not_banned(make_edge: MakeEdge) -> None:
    edge = await make_edge(**POLICY, relay_clients=OURS)
    for number in range(12):
        assert (await log_in(edge, f"name{number}", "wrong")).startswith("535")
    assert not edge.server.bans


@pytest.mark.parametrize(
    ("failed", "tried", "too_many"), [(3, 3, False), (4, 4, True), (4, 8, True), (4, 9, False), (40, 400, False)]
)
def test_a_number_and_a_share_count(failed: int, tried: int, too_many: bool) -> None:
    assert is_too_many(AuthFailures(most=4), Count(failed, tried)) is too_many


@pytest.mark.parametrize(
    ("login", "password", "code"),
    [
        ("bob+phone", "secret-b", "235"),
        ("bob+phone@example.test", "secret-b", "235"),
        ("bob+phone", "secret-a", "535"),
        ("+phone", "secret-b", "535"),
        ("bob+phone@far.example", "secret-b", "535"),
        ("team+x@example.test", "secret-t", "235"),
    ],
)
async def test_a_login_with_a_detail_means_the_account(
    make_edge: MakeEdge, login: str, password: str, code: str
) -> None:
    edge = await make_edge(**POLICY)
    edge.directory.add("team+x@example.test", password="secret-t")
    edge.directory.add("team@example.test", password="another")
    assert (await log_in(edge, login, password))[:3] == code


async def test_who_logs_in_is_no_longer_slowed_down(make_edge: MakeEdge) -> None:
    edge = await make_edge(**POLICY, errors_before_delay=1, error_delay=0.01)
    client = await edge.client()
    assert await client.code("FOO") == 500
    session = next(iter(edge.server.sessions))
    assert session.slow == 0.01
    assert await client.code(plain("bob", "secret-b")) == 235
    assert session.slow == 0.0
    assert await client.code("NOOP") == 250
