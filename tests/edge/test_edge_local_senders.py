"""Senders of our own domains: who may name them, and whether they exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gatepost.core.authentication.spf import SpfStatus
from gatepost.core.checks.authentication import AuthenticationPolicy
from gatepost.core.checks.local_sender import LocalSenderFacts, LocalSenderPolicy, evaluate
from gatepost.core.configuration import ClientRule
from gatepost.core.manifest.actions import Action

if TYPE_CHECKING:
    from conftest import Client, MakeEdge

OWN = (ClientRule(("127.0.0.0/8",), ("example.test",)),)
SPOOFED = LocalSenderPolicy(spoofed=Action.REJECT)
MUST_EXIST = LocalSenderPolicy(must_exist=True)


@pytest.mark.parametrize(
    ("policy", "own", "spf", "exists", "code"),
    [
        (SPOOFED, False, None, None, 550),
        (SPOOFED, False, SpfStatus.FAIL, None, 550),
        (SPOOFED, False, SpfStatus.SOFTFAIL, None, 550),
        (SPOOFED, False, SpfStatus.PASS, None, 0),  # on the road, by another provider's server
        (SPOOFED, True, None, None, 0),
        (LocalSenderPolicy(spoofed=Action.DEFER), False, None, None, 450),
        (MUST_EXIST, False, None, True, 0),
        (MUST_EXIST, False, None, False, 550),
        (MUST_EXIST, True, None, False, 550),
        (MUST_EXIST, True, None, None, 451),
        (LocalSenderPolicy(), False, None, None, 0),
    ],
)
def test_what_follows(
    policy: LocalSenderPolicy, own: bool, spf: SpfStatus | None, exists: bool | None, code: int
) -> None:
    verdict = evaluate(policy, LocalSenderFacts("bob@example.test", own, spf, exists))
    assert (verdict.answer.code if verdict else 0) == code
    if verdict and policy.spoofed is Action.DEFER:
        assert verdict.action is Action.DEFER


async def recipient(client: Client, sender: str, to: str = "alice@example.test") -> str:
    await client.ask(f"MAIL FROM:<{sender}>")
    reply = await client.ask(f"RCPT TO:<{to}>")
    await client.ask("RSET")
    return reply


@pytest.mark.requirement("S3-3")
async def test_a_sender_of_ours_must_exist_whoever_names_it(make_edge: MakeEdge) -> None:
    """Fails without the look-up of senders, or where a directory that is away makes one unknown."""
    edge = await make_edge(local_sender=MUST_EXIST, relay_clients=OWN)
    client = await edge.client()
    for to in ("alice@example.test", "somebody@example.net"):
        assert (await recipient(client, "nobody@example.test", to)).startswith("550 5.1.0")
        assert (await recipient(client, "bob+tag@example.test", to)).startswith("250")
        assert (await recipient(client, "postmaster@example.test", to)).startswith("250")
        assert (await recipient(client, "", to)).startswith("250")
    assert (await recipient(client, "nobody@example.org")).startswith("250")
    edge.directory.away = True
    assert (await recipient(client, "nobody@example.test", "x@example.net")).startswith("451 4.4.3")


@pytest.mark.requirement("S0-21")
@pytest.mark.requirement("S1-1")
async def test_posing_as_one_of_ours_is_refused_to_strangers(make_edge: MakeEdge) -> None:
    """Fails without SPF beside the name: the name alone decides, or our users' mail by their provider is lost."""
    policy: dict[str, Any] = {"local_sender": SPOOFED, "authentication": AuthenticationPolicy()}
    edge = await make_edge(**policy)
    client = await edge.client()
    assert (await recipient(client, "bob@example.test")).startswith("550 5.7.1")
    edge.resolver.add("example.test", "TXT", "v=spf1 ip4:127.0.0.1 -all")
    assert (await recipient(client, "bob@example.test")).startswith("250")
    own = await make_edge(relay_clients=OWN, **policy)
    assert (await recipient(await own.client(), "bob@example.test")).startswith("250")


async def test_the_sender_is_judged_once_for_a_transaction(make_edge: MakeEdge) -> None:
    edge = await make_edge(local_sender=SPOOFED)
    client = await edge.client()
    await client.ask("MAIL FROM:<bob@example.test>")
    for _ in range(3):
        assert (await client.ask("RCPT TO:<alice@example.test>")).startswith("550 5.7.1")
    assert [one.facts["check"] for one in edge.events.all if one.kind == "judged"].count("local-sender") == 1
