"""Message rates: one mailbox, one sender, one network can only take or send so much within a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gatepost.core.checks.connection import ConnectionRules
from gatepost.core.checks.message_rates import MessageRates, Rate
from gatepost.core.configuration import ClientRule

if TYPE_CHECKING:
    from conftest import Client, MakeEdge


async def send(client: Client, sender: str = "a@example.org", *recipients: str) -> str:
    """The reply to the last RCPT that was refused, else the one behind the dot."""
    await client.ask(f"MAIL FROM:<{sender}>")
    taken = 0
    reply = ""
    for recipient in recipients or ("bob@example.test",):
        reply = await client.ask(f"RCPT TO:<{recipient}>")
        taken += reply.startswith("250")
    if not taken:
        await client.ask("RSET")
        return reply
    await client.ask("DATA")
    client.send(".\r\n")
    return await client.reply()


@pytest.mark.requirement("S4-30")
@pytest.mark.requirement("S3-17")
async def test_a_bombed_mailbox_takes_no_more_for_a_while(make_edge: MakeEdge) -> None:
    """Fails without a limit on the number of messages for one mailbox, whoever sends them."""
    edge = await make_edge(message_rates=MessageRates(recipient=Rate(3, 600.0)))
    now = edge.server.deps.now_ms()
    for number in range(3):
        assert (await send(await edge.client(), f"a{number}@example.org")).startswith("250")
    client = await edge.client()
    assert (await send(client, "z@example.org", "bob+x@example.test", "BOB@example.test")).startswith("450 4.2.1")
    assert (await send(client, "z@example.org", "alice@example.test")).startswith("250")
    assert (await send(client, "z@example.org", "postmaster@example.test")).startswith("250")
    object.__setattr__(edge.server.deps, "now_ms", lambda: now + 601_000)
    assert (await send(client, "z@example.org")).startswith("250")


async def test_what_was_refused_is_not_counted(make_edge: MakeEdge) -> None:
    edge = await make_edge(message_rates=MessageRates(recipient=Rate(1)))
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")
    await client.ask("RSET")
    assert (await send(client)).startswith("250")
    assert (await send(client)).startswith("450 4.2.1")


async def test_a_network_is_limited_and_own_clients_are_not(make_edge: MakeEdge) -> None:
    rates = MessageRates(client=Rate(1))
    stranger = await make_edge(message_rates=rates)
    client = await stranger.client()
    assert (await send(client)).startswith("250")
    assert (await send(client, "b@example.org")).startswith("450 4.7.1")
    own = (ClientRule(("127.0.0.0/8",), ("example.test",)),)
    for more in ({"relay_clients": own}, {"connection": ConnectionRules(("127.0.0.1",))}):
        edge = await make_edge(message_rates=rates, **more)
        client = await edge.client()
        assert [(await send(client))[:3] for _ in range(3)] == ["250"] * 3


async def test_who_relays_is_limited_as_a_sender(make_edge: MakeEdge) -> None:
    own = (ClientRule(("127.0.0.0/8",), ("example.test",)),)
    edge = await make_edge(message_rates=MessageRates(sender=Rate(2)), relay_clients=own)
    client = await edge.client()
    for _ in range(2):
        assert (await send(client, "bob@example.test", "x@example.net")).startswith("250")
    assert (await send(client, "bob@example.test", "x@example.net")).startswith("450 4.7.1")
    assert [(await send(client, "", "bob@example.test"))[:3] for _ in range(3)] == ["250"] * 3  # bounces
