"""Who gets a session at all: concurrency, rates, networks, the greeting held back, and 1,000 that only connect."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.checks.connection import ConnectionRules
from gatepost.core.configuration import ClientRule
from gatepost.core.networks import enclosing_network
from gatepost.edge.arrivals import MOST_CLIENTS, Arrivals

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

SECOND, THIRD = "127.0.0.2", "127.0.0.3"
OTHER_NETWORK = "127.0.9.1"


async def first_line(edge: Edge, address: str = "127.0.0.1") -> str:
    return await (await edge.connect(local_addr=(address, 0))).reply()


@pytest.mark.requirement("S0-26")
async def test_connections_in_a_minute(make_edge: MakeEdge) -> None:
    """Fails without a limit of connections of one address per minute."""
    edge = await make_edge(per_host_rate=3)
    for _ in range(3):
        client = await edge.connect()
        assert (await client.reply()).startswith("220")
        await client.ask("QUIT")
    assert (await first_line(edge)).startswith(
        "421 4.7.0 too many connections from your address in a minute (per-h"
    )
    assert (await first_line(edge, SECOND)).startswith("220")


@pytest.mark.parametrize(
    "policy",
    [
        {"connection": ConnectionRules(allow=("127.0.0.1",))},
        {"relay_clients": (ClientRule(("127.0.0.0/8",), ("Local",)),)},
    ],
    ids=["allowed", "own"],
)
async def test_who_has_no_rate(make_edge: MakeEdge, policy: dict[str, Any]) -> None:
    edge = await make_edge(per_host_rate=1, banner_delay=1e6, **policy)
    for _ in range(3):
        assert (await first_line(edge)).startswith("220")


@pytest.mark.requirement("S0-23")
@pytest.mark.requirement("S0-25")
@pytest.mark.requirement("S2-10")
async def test_neighbours_share_a_limit(make_edge: MakeEdge) -> None:
    """Fails without limits of concurrent sessions for one address, its network and in all."""
    edge = await make_edge(
        per_network_concurrent=3, per_host_concurrent=2, total_concurrent=5, network_ipv4_prefix=24
    )
    first = [await edge.connect() for _ in range(2)]
    for client in first:
        assert (await client.reply()).startswith("220")
    assert "(per-host-concurrent)" in await first_line(edge)
    assert (await first_line(edge, SECOND)).startswith("220")
    assert (await first_line(edge, THIRD)).startswith(
        "421 4.7.0 too many connections from your network (per-network-"
    )
    for _ in range(2):
        assert (await first_line(edge, OTHER_NETWORK)).startswith("220")
    assert "(total-concurrent)" in await first_line(edge, "127.0.10.1")
    await first[0].ask("QUIT")
    (listener,) = {session.listener for session in edge.server.sessions}
    await edge.until(lambda: listener.sessions == 4)
    assert (await first_line(edge, THIRD)).startswith("220")


async def test_counts_come_back_to_nothing(make_edge: MakeEdge) -> None:
    """Also where the policy changes between coming and going."""
    edge = await make_edge(per_network_concurrent=3)
    client = await edge.client()
    (session,) = edge.server.sessions
    listener = session.listener
    assert listener.networks == {"127.0.0.0/24": 1}
    edge.configure(network_ipv4_prefix=8)
    second = await edge.client()
    assert listener.networks == {"127.0.0.0/24": 1, "127.0.0.0/8": 1}
    edge.configure(per_network_concurrent=0)
    third = await edge.client()
    for one in (client, second, third):
        await one.ask("QUIT")
    await edge.until(lambda: not edge.server.sessions)
    assert (listener.networks, listener.hosts, listener.sessions) == ({}, {}, 0)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_networks_of_addresses(address: str, network: str) -> None:
    assert enclosing_network(address, 24, 64) == network


@given(st.ip_addresses(), st.integers(8, 32), st.integers(16, 128))
def test_an_address_is_in_its_network(address: Any, ipv4: int, ipv6: int) -> None:
    plain = getattr(address, "ipv4_mapped", None) or address
    assert plain in ipaddress.ip_network(enclosing_network(str(address).split("%", 1)[0], ipv4, ipv6))


def test_arrivals_slide_over_a_minute() -> None:
    arrivals = Arrivals()
    now = 6000.0
    assert [arrivals.count("a", now + second) for second in range(4)] == [1, 2, 3, 4]
    assert arrivals.count("b", now) == 1
    assert arrivals.count("a", now + 60) == 5  # all of the minute before still count
    assert arrivals.count("a", now + 90) == 2 + 4 / 2
    assert arrivals.count("a", now + 119) == pytest.approx(3 + 4 / 60)
    assert arrivals.count("a", now + 240) == 1
    assert arrivals.remembered() == 1


def test_arrivals_have_a_bounded_memory() -> None:
    arrivals = Arrivals()
    for number in range(MOST_CLIENTS + 10):
        arrivals.count(str(number), 0.0)
    assert arrivals.remembered() == MOST_CLIENTS
    assert arrivals.count("0", 0.0) == 2
    assert arrivals.count("new", 0.0) == 0


async def test_the_greeting_is_held_back(make_edge: MakeEdge) -> None:
    edge = await make_edge(banner_delay=0.05)
    patient = await edge.client()
    assert (await patient.ask("NOOP")).startswith("250")
    hasty = await edge.connect()
    hasty.send("EHLO hasty.example\r\n")
    assert (await hasty.reply()).startswith("554 5.5.0 you spoke before the greeting (RFC 5321 3.1) (early-talker)")
    assert await hasty.rest() == b""


async def test_who_talks_while_the_greeting_is_held_back_is_refused(make_edge: MakeEdge) -> None:
    """A client whose first bytes come after the connection was made, which a look at that moment does not see."""
    edge = await make_edge(banner_delay=0.2)
    client = await edge.connect()
    await edge.until(lambda: bool(edge.server.sessions))
    (session,) = edge.server.sessions
    assert session.task is not None
    client.send("QUIT\r\n")
    assert "(early-talker)" in await client.reply()


async def test_a_client_that_leaves_before_the_greeting(make_edge: MakeEdge) -> None:
    edge = await make_edge(banner_delay=1e6)
    client = await edge.connect()
    await edge.until(lambda: bool(edge.server.sessions))
    client.reset()
    await edge.until(lambda: not edge.server.sessions)


@pytest.mark.requirement("S0-51")
async def test_who_only_asks_for_recipients_is_reaped(make_edge: MakeEdge) -> None:
    """Fails without an end for sessions that name recipients, send no message and do not close."""
    edge = await make_edge(recipients_without_message=3)
    client = await edge.client()
    for _ in range(3):
        await client.ask("MAIL FROM:<a@example.org>")
        assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")
        await client.ask("RSET")
    await client.ask("MAIL FROM:<a@example.org>")
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("421 4.7.0")
    assert await client.rest() == b""
    await edge.until(lambda: not edge.server.sessions)


async def test_a_message_starts_the_count_of_recipients_anew(make_edge: MakeEdge) -> None:
    edge = await make_edge(recipients_without_message=2)
    client = await edge.client()
    for _ in range(3):
        await client.begin("bob@example.test", "alice@example.test")
        client.send("Subject: x\r\n\r\nhello\r\n.\r\n")
        assert (await client.reply()).startswith("250")


@pytest.mark.requirement("S0-27")
async def test_a_thousand_idle_connections_of_one_address_keep_nobody_out(make_edge: MakeEdge) -> None:
    """421 above the cap, and another address is served meanwhile. Fails without a cap for one address, or without
    an end of those that stay idle."""
    edge = await make_edge(per_host_concurrent=50, idle_timeout=300.0)

    async def idle() -> Client:
        return await edge.connect(local_addr=(SECOND, 0))

    many: list[Client] = []
    for _ in range(10):
        many += await asyncio.gather(*(idle() for _ in range(100)))
    lines = await asyncio.gather(*(client.reply() for client in many))
    assert sum(line.startswith("220") for line in lines) == 50
    assert sum("(per-host-concurrent)" in line for line in lines) == 950
    other = await edge.client()
    await asyncio.gather(*(client.rest() for client, line in zip(many, lines, strict=True) if line[0] == "4"))
    await edge.until(lambda: len(edge.server.sessions) == 51)
    edge.server.sweep(edge.server.loop.time() + 301.0)
    assert "(idle-timeout)" in await other.reply()
    await edge.until(lambda: not edge.server.sessions)
