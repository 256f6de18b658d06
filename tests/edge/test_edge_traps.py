"""Spam traps: who writes to one is refused and banned, and nobody can get somebody else banned by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gatepost.core.bans import client_key, sender_key
from gatepost.core.checks.authentication import AuthenticationPolicy
from gatepost.core.checks.connection import ConnectionRules
from gatepost.core.checks.dnsbl import DnsblList, DnsblPolicy
from gatepost.core.checks.spam_traps import Consequences, SpamTrapPolicy, TrapFacts, evaluate
from gatepost.core.configuration import ClientRule
from gatepost.core.envelope import Trust
from gatepost.core.manifest.actions import Action

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

TRAP = "trash@example.test"
POLICY = SpamTrapPolicy((TRAP,), ban_client=100.0, ban_sender=200.0)
SENDER = "alice@example.org"


async def fall(client: Client, *recipients: str, sender: str = SENDER) -> str:
    await client.begin(*recipients, sender=sender)
    client.send("Subject: s\r\n\r\nbody\r\n.\r\n")
    return await client.reply()


def banned(edge: Edge) -> set[str]:
    return {event.facts["subject"] for event in edge.events.all if event.kind == "banned"}


@pytest.mark.parametrize(
    ("trust", "known_good", "client", "sender"),
    [
        (Trust.UNVERIFIED, False, 100.0, 0.0),  # anybody may have written that name
        (Trust.SPF_PASS, False, 100.0, 200.0),
        (Trust.DKIM_ALIGNED, False, 100.0, 200.0),
        (Trust.AUTHENTICATED, False, 100.0, 0.0),
        (Trust.SPF_PASS, True, 0.0, 0.0),
    ],
)
def test_who_is_banned(trust: Trust, known_good: bool, client: float, sender: float) -> None:
    follows = evaluate(POLICY, TrapFacts(TRAP, SENDER, trust, known_good))
    assert (follows.ban_client, follows.ban_sender, follows.refuses) == (client, sender, True)


def test_the_null_sender_is_never_banned() -> None:
    follows = evaluate(POLICY, TrapFacts(TRAP, "", Trust.SPF_PASS, False))
    assert isinstance(follows, Consequences)
    assert follows.ban_sender == 0.0


def test_a_trap_that_refuses_only_itself() -> None:
    follows = evaluate(
        SpamTrapPolicy((TRAP,), refuse_for_all=False), TrapFacts(TRAP, SENDER, Trust.SPF_PASS, False)
    )
    assert (follows.verdict.action, follows.refuses) == (Action.ACCEPT, False)
    assert follows.ban_client > 0


@pytest.mark.requirement("S0-45")
@pytest.mark.requirement("S0-46")
async def test_a_message_that_names_a_trap_is_refused_for_all(make_edge: MakeEdge) -> None:
    """Fails without the refusal for every recipient, or when the trap can be told from a mailbox at RCPT."""
    edge = await make_edge(spam_traps=POLICY)
    for recipients in (("bob@example.test", TRAP), (TRAP, "bob@example.test"), (TRAP, "postmaster@example.test")):
        reply = await fall(await edge.client(), *recipients)
        assert reply.startswith("550 5.7.1 this message is not wanted here (spam-trap)")
        edge.server.bans._index.discard(client_key("127.0.0.1"))
    assert edge.messages() == []
    assert banned(edge) == {"127.0.0.1"}


@pytest.mark.requirement("S0-47")
async def test_a_trap_needs_no_mailbox_and_has_no_size(make_edge: MakeEdge) -> None:
    """Fails without taking a trap before the directory is asked, or when a size is judged before it springs."""
    edge = await make_edge(spam_traps=POLICY)
    edge.directory.away = True
    client = await edge.client()
    assert (await client.ask(f"MAIL FROM:<{SENDER}> SIZE=40000000")).startswith("250")
    assert (await client.ask(f"RCPT TO:<{TRAP.upper()}>")).startswith("250 2.1.5")
    assert (await client.ask("DATA")).startswith("354")
    client.send(".\r\n")
    assert (await client.reply()).startswith("550 5.7.1")


async def test_every_edge_keeps_the_client_away(make_edge: MakeEdge) -> None:
    one = await make_edge(spam_traps=POLICY)
    other = await make_edge(log=one.log)
    await fall(await one.client(), TRAP)
    await other.until(lambda: bool(other.server.bans))
    assert (await (await other.connect()).reply()).startswith("421 4.7.1")


@pytest.mark.parametrize(
    "more",
    [
        {"connection": ConnectionRules(("127.0.0.0/8",))},
        {"relay_clients": (ClientRule(("127.0.0.0/8",), ("example.test",)),)},
        {"dnsbl": DnsblPolicy((DnsblList("good.example", weight=-1),))},
    ],
    ids=["allowed", "relay client", "list of the good"],
)
async def test_a_known_good_client_is_refused_but_never_banned(make_edge: MakeEdge, more: dict[str, Any]) -> None:
    edge = await make_edge(spam_traps=POLICY, authentication=AuthenticationPolicy(), **more)
    edge.resolver.add("1.0.0.127.good.example", "A", "127.0.0.2")
    edge.resolver.add("example.org", "TXT", "v=spf1 ip4:127.0.0.1 -all")
    assert (await fall(await edge.client(), "bob@example.test", TRAP)).startswith("550 5.7.1")
    assert banned(edge) == set()


async def test_a_proven_sender_is_kept_away_wherever_it_comes_from(make_edge: MakeEdge) -> None:
    edge = await make_edge(spam_traps=POLICY, authentication=AuthenticationPolicy())
    edge.resolver.add("example.org", "TXT", "v=spf1 ip4:127.0.0.1 -all")
    await fall(await edge.client(), TRAP)
    assert banned(edge) == {"127.0.0.1", f"sender:{SENDER}"}
    edge.server.bans._index.discard(client_key("127.0.0.1"))
    client = await edge.client()
    await client.ask(f"MAIL FROM:<{SENDER.upper()}>")
    reply = await client.ask("RCPT TO:<bob@example.test>")
    assert reply.startswith(
        "450 4.7.1 <bob@example.test>: mail of this sender is not taken for some time (spam-trap)"
    )
    assert (await client.ask("RCPT TO:<postmaster@example.test>")).startswith("250")
    await client.ask("RSET")
    await client.ask("MAIL FROM:<other@example.org>")
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")


async def test_a_forged_sender_is_not_banned(make_edge: MakeEdge) -> None:
    edge = await make_edge(spam_traps=POLICY, authentication=AuthenticationPolicy())
    edge.resolver.add("example.org", "TXT", "v=spf1 -all")
    await fall(await edge.client(), TRAP)
    assert banned(edge) == {"127.0.0.1"}
    assert edge.server.bans.named(sender_key(SENDER)) is None


async def test_who_leaves_before_the_message_is_not_judged(make_edge: MakeEdge) -> None:
    edge = await make_edge(spam_traps=POLICY)
    client = await edge.client()
    await client.ask(f"MAIL FROM:<{SENDER}>")
    await client.ask(f"RCPT TO:<{TRAP}>")
    assert (await client.ask("RSET")).startswith("250")
    assert (await fall(client, "bob@example.test")).startswith("250")
    assert banned(edge) == set()
