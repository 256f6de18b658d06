"""Layers at an edge: domains' policies, canaries, Shadows, and what flips of policies do to sessions under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from gatepost.core.access.source import read_line
from gatepost.core.checks.access import AccessConfig
from gatepost.core.checks.authentication import AuthenticationPolicy, DmarcActions
from gatepost.core.checks.connection import ConnectionRules
from gatepost.core.checks.greylist import GreylistPolicy
from gatepost.core.checks.reverse_dns import Require, ReverseDns
from gatepost.core.checks.spam_traps import SpamTrapPolicy
from gatepost.core.compile import Surroundings, compile_manifests
from gatepost.core.configuration import Beside, ClientRule, Configuration, ListenerPolicy
from gatepost.core.configuration_layers import Overlay
from gatepost.core.event_kinds import JUDGED, REFUSED, SHADOWED
from gatepost.core.layers import in_rollout
from gatepost.core.manifest.actions import Action
from gatepost.core.manifest.policy_layers import Exemption
from gatepost.core.manifest.relay_policy import RequireFor
from gatepost.core.manifest.settings import Role
from gatepost.core.tables import Tables
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

NAMELESS = ReverseDns(Require.PTR, Action.REJECT)
MESSAGE = b"From: <ceo@bank.test>\r\nSubject: x\r\n\r\nHello\r\n.\r\n"
STRICT = AuthenticationPolicy(dmarc=DmarcActions(reject=Action.REJECT))


def over(domain: str, **facts: Any) -> Overlay:
    return Overlay("mx", "", (domain,), f"RelayPolicy default/{domain}", 1, **facts)


def beside(percent: int = 0, *, shadow: bool = False, **policy: Any) -> Beside:
    return Beside(ListenerPolicy("mx", origin="RelayPolicy default/next", **policy), shadow, percent)


def rules(*lines: str) -> AccessConfig:
    entries = [read_line(line) for line in lines]
    return AccessConfig(tuple(entry for entry in entries if entry is not None))


async def mail(client: Client, *recipients: str, sender: str = "alice@example.org") -> list[int]:
    assert await client.code(f"MAIL FROM:<{sender}>") == 250
    return [await client.code(f"RCPT TO:<{recipient}>") for recipient in recipients]


async def content(client: Client) -> str:
    assert await client.code("DATA") == 354
    client.send(MESSAGE)
    return await client.reply()


def bank(edge: Edge) -> None:
    """bank.test wants what it did not authenticate refused."""
    edge.resolver.add("_dmarc.bank.test", "TXT", "v=DMARC1; p=reject")


def hold(edge: Edge, monkeypatch: pytest.MonkeyPatch, gate: asyncio.Event) -> None:
    """The DNS answers nothing before the gate is open."""

    def held(real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def answer(*asked: Any) -> Any:
            await gate.wait()
            return await real(*asked)

        return answer

    for name in ("ptr", "txt", "query", "addresses", "mx"):
        monkeypatch.setattr(edge.resolver, name, held(getattr(edge.resolver, name)))


def shadowed(edge: Edge) -> list[dict[str, str]]:
    return [event.facts for event in edge.events.all if event.kind == SHADOWED]


# -- domains


@pytest.mark.requirement("S3-2")
async def test_an_exemption_voids_the_verdict_for_the_domains_recipients_alone(edge: Edge) -> None:
    """Fails without flags of one domain's own: it accepts what the listener refuses for all others."""
    edge.configure(reverse_dns=NAMELESS)
    edge.lay(over("open.test", exempt=(Exemption.REVERSE_DNS,)))
    client = await edge.client()
    assert await mail(client, "x@open.test", "bob@example.test", "x@elsewhere.test") == [250, 550, 550]
    assert (await content(client)).startswith("250")
    (found, _), *_ = edge.messages()
    assert [one.address for one in found.recipients] == ["x@open.test"]


async def test_the_first_recipient_decides_and_bdat_is_judged_alike(edge: Edge) -> None:
    """The content rules of the domain whose recipient was taken, whoever was refused with 452 before or after."""
    bank(edge)
    edge.lay(over("strict.test", authentication=STRICT))
    client = await edge.client()
    assert await mail(client, "bob@example.test", "x@strict.test") == [250, 452]
    assert (await content(client)).startswith("250")
    assert await mail(client, "x@strict.test", "bob@example.test") == [250, 452]
    assert (await content(client)).startswith("550 5.7.26")
    assert await mail(client, "x@strict.test") == [250]
    octets = MESSAGE[: -len(b".\r\n")]
    client.send(b"BDAT %d LAST\r\n" % len(octets) + octets)
    assert (await client.reply()).startswith("550 5.7.26")
    (found, _) = edge.messages()[0]
    assert "Authentication-Results" not in found.prepend  # example.test did not ask for it


async def test_a_relayed_recipient_has_the_listeners_content_rules(edge: Edge) -> None:
    edge.configure(relay_clients=(ClientRule(("127.0.0.0/8",), ("example.org",)),))
    edge.lay(over("strict.test", authentication=STRICT))
    client = await edge.client()
    assert await mail(client, "x@strict.test", "y@elsewhere.test", "z@strict.test") == [250, 452, 250]


async def test_a_trap_of_one_domain_is_no_trap_of_another(edge: Edge) -> None:
    trap = SpamTrapPolicy(("trap@a.test", "bob@example.test"), ban_client=0.0, ban_sender=0.0)
    edge.lay(over("a.test", spam_traps=trap))
    client = await edge.client()
    assert await mail(client, "bob@example.test") == [250]
    assert (await content(client)).startswith("250")
    assert await mail(client, "bob@example.test", "trap@a.test") == [250, 250]
    assert "(spam-trap)" in await content(client)


async def test_greylisting_of_one_domain(edge: Edge) -> None:
    edge.lay(over("grey.test", greylist=GreylistPolicy()))
    await edge.until(lambda: edge.state is not None and edge.state.current)
    client = await edge.client()
    assert await mail(client, "x@grey.test", "bob@example.test", "postmaster@grey.test") == [450, 250, 250]


# -- who may do what


@pytest.mark.requirement("S3-1")
async def test_a_listener_of_which_nobody_wrote_anything(edge: Edge) -> None:
    """Fails without a default for each listener that delivers only to local addresses and tells each refusal."""
    around = Surroundings({"mx": Role.MX, "new": Role.INTERNAL})
    configuration = compile_manifests((), (), around).configuration
    assert {policy.listener for policy in configuration.listeners} == {"mx", "new"}
    for policy in configuration.listeners:
        own = msgspec.structs.replace(policy, listener="mx")
        edge.server.on_configuration(Tables(Configuration(1, edge.configuration.domains, (own,))))
        edge.events.all.clear()
        client = await edge.client()
        assert await mail(client, "bob@example.test", "x@elsewhere.test", "nobody@example.test") == [250, 550, 550]
        assert (await content(client)).startswith("250")
        refused = [(event.recipient, event.facts["check"]) for event in edge.events.all if event.kind == REFUSED]
        assert refused == [("x@elsewhere.test", "relay"), ("nobody@example.test", "recipient")]


@pytest.mark.requirement("S2-13")
async def test_a_network_decides_apart_who_may_connect_hand_over_and_relay(edge: Edge) -> None:
    """Fails without separate answers to: may it connect, may it hand over mail, may it relay."""
    edge.configure(
        per_host_concurrent=0,
        connection=ConnectionRules(allow=("127.0.0.2-127.0.0.9",), deny=("127.0.0.3", "127.0.0.4")),
        relay_clients=(ClientRule(("127.0.0.4/32", "127.0.0.5/32"), ("example.org",)),),
    )

    async def told(address: str) -> tuple[int, ...]:
        client = await edge.connect(local_addr=(address, 0))
        greeting = int((await client.reply())[:3])
        if greeting != 220:
            return (greeting,)
        assert await client.code("HELO client.example.org") == 250
        return (greeting, *await mail(client, "bob@example.test", "x@elsewhere.test"))

    assert await told("127.0.0.1") == (421,)
    assert await told("127.0.0.2") == (220, 250, 550)
    assert await told("127.0.0.5") == (220, 250, 250)
    edge.configure(per_host_concurrent=50)
    assert await told("127.0.0.3") == (220, 550, 550)
    assert await told("127.0.0.4") == (220, 550, 550)  # a right to relay is none to hand mail over


# -- canaries


async def test_a_canary_judges_the_clients_in_its_rollout_and_no_others(edge: Edge) -> None:
    percent = next(n for n in range(101) if in_rollout("127.0.0.1", "RelayPolicy default/next", n))
    assert 0 < percent <= 100
    canary = beside(percent, reverse_dns=NAMELESS, access=rules("From:bad.test\tREJECT"))
    edge.lay(beside=(canary,))
    assert await mail(await edge.client(), "bob@example.test") == [550]
    edge.lay(beside=(msgspec.structs.replace(canary, percent=percent - 1),))
    client = await edge.client()
    assert await mail(client, "bob@example.test") == [250]
    edge.lay(beside=(canary,))
    assert await client.code("RCPT TO:<alice@example.test>") == 250  # pinned at MAIL
    assert await client.code("RSET") == 250
    assert await mail(client, "bob@example.test", sender="x@bad.test") == [550]


async def test_what_a_canary_lets_relay_ends_with_it(edge: Edge) -> None:
    """Fails without the revocation of rights that only the canary gave."""
    edge.lay(beside=(beside(99, relay_clients=(ClientRule(("127.0.0.0/8",), ("example.org",)),)),))
    client = await edge.client()
    assert await mail(client, "x@elsewhere.test") == [250]
    edge.lay()
    assert await client.code("DATA") == 421
    assert await mail(await edge.client(), "x@elsewhere.test") == [550]


async def test_a_pinned_transaction_keeps_the_access_rules_of_its_policy(edge: Edge) -> None:
    edge.lay(beside=(beside(99, access=rules("To:bob@example.test\tREJECT")),))
    client = await edge.client()
    assert await client.code("MAIL FROM:<alice@example.org>") == 250
    edge.lay()
    assert await client.code("RCPT TO:<bob@example.test>") == 550


# -- Shadow


@pytest.mark.requirement("S0-43")
async def test_a_shadow_says_what_it_would_have_done_and_does_nothing(edge: Edge) -> None:
    """Fails without a dry run: a policy that is decided on real mail and recorded, and never acts."""
    bank(edge)
    edge.lay(
        beside=(
            beside(
                shadow=True,
                reverse_dns=NAMELESS,
                access=rules("To:alice@example.test\tREJECT", "To:bob@example.test\tOK"),
                authentication=STRICT,
            ),
        )
    )
    client = await edge.client()
    assert await mail(client, "bob@example.test", "alice@example.test", "sales@example.test") == [250] * 3
    assert (await content(client)).startswith("250")
    await edge.server.shadows.settle()
    found = {(one["stage"], one["to"]): one for one in shadowed(edge)}
    assert ("recipient", "<bob@example.test>") not in found  # it would have taken him as well
    assert found["recipient", "<alice@example.test>"]["check"] == "access"
    sales = found["recipient", "<sales@example.test>"]
    assert (sales["check"], sales["action"], sales["really"]) == ("reverse-dns", "Reject", "Accept")
    assert (sales["mode"], sales["policy"]) == ("Shadow", "RelayPolicy default/next")
    (whole,) = (one for one in shadowed(edge) if one["stage"] == "content")
    assert (whole["check"], whole["action"], whole["really"]) == ("dmarc", "Reject", "Accept")
    ((envelope, _),) = edge.messages()
    assert (envelope.tags, envelope.strip, len(envelope.recipients)) == ((), (), 3)
    assert "Authentication-Results" not in envelope.prepend
    assert JUDGED not in edge.events.kinds()


async def test_its_look_ups_delay_no_reply(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails without answers that come before the Shadow's: the DNS gives none until the message is accepted."""
    gate = asyncio.Event()
    hold(edge, monkeypatch, gate)
    edge.lay(beside=(beside(shadow=True, reverse_dns=NAMELESS, authentication=STRICT),))
    client = await edge.client()
    assert await mail(client, "bob@example.test") == [250]
    assert (await content(client)).startswith("250")
    assert await client.code("QUIT") == 221
    assert shadowed(edge) == []
    gate.set()
    await edge.server.shadows.settle()
    assert [one["stage"] for one in shadowed(edge)] == ["recipient"]


async def test_a_shadow_would_accept_what_is_refused(edge: Edge) -> None:
    edge.configure(reverse_dns=NAMELESS)
    edge.lay(beside=(beside(shadow=True, relay_clients=(ClientRule(("127.0.0.0/8",), ("example.org",)),)),))
    client = await edge.client()
    assert await mail(client, "bob@example.test", "x@elsewhere.test", "nobody@example.test") == [550, 550, 550]
    await edge.server.shadows.settle()
    told = {(one["to"], one["action"], one["really"]) for one in shadowed(edge)}
    assert told == {("<bob@example.test>", "Accept", "Reject"), ("<x@elsewhere.test>", "Accept", "Reject"),
                    ("<nobody@example.test>", "Accept", "Reject")}  # fmt: skip
    assert edge.messages() == []


async def test_a_domains_shadow(edge: Edge) -> None:
    bank(edge)
    edge.lay(
        over("a.test", shadow=True, authentication=STRICT, spam_traps=SpamTrapPolicy(("trap@a.test",))),
        msgspec.structs.replace(over("a.test", greylist=GreylistPolicy()), origin="x", percent=0),
    )
    client = await edge.client()
    assert await mail(client, "x@a.test", "trap@a.test", "bob@example.test") == [250] * 3
    assert (await content(client)).startswith("250")
    await edge.server.shadows.settle()
    told = [(one["stage"], one["check"], one["policy"]) for one in shadowed(edge)]
    assert sorted(told) == [
        ("content", "dmarc", "RelayPolicy default/a.test"),
        ("recipient", "spam-trap", "RelayPolicy default/a.test"),
    ]


async def test_without_a_shadow_nothing_is_made(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    edge.configure(reverse_dns=ReverseDns(), auth_require_for=RequireFor.RELAY)
    edge.lay(over("a.test", greylist=None))
    made: list[object] = []
    monkeypatch.setattr(edge.server.shadows, "start", lambda *work: made.append(work))
    client = await edge.client()
    assert await mail(client, "bob@example.test", "x@a.test") == [250, 250]
    assert (await content(client)).startswith("250")
    assert made == []


async def test_more_than_can_be_judged_aside_is_counted(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatepost.edge.shadow.MOST", 0)
    edge.lay(beside=(beside(shadow=True, authentication=STRICT),))
    before = metrics.SHADOW_SKIPPED.values.get(("busy",), 0)
    client = await edge.client()
    assert await mail(client, "bob@example.test") == [250]
    assert (await content(client)).startswith("250")
    assert metrics.SHADOW_SKIPPED.values["busy",] == before + 2


async def test_an_edge_that_closes_ends_what_is_judged_aside(
    make_edge: MakeEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails without an owner of the Shadows' tasks: a loop that ends with one of them warns, which is an error."""
    edge = await make_edge()

    hold(edge, monkeypatch, asyncio.Event())
    edge.lay(beside=(beside(shadow=True, reverse_dns=NAMELESS, authentication=STRICT),))
    client = await edge.client()
    assert await mail(client, "bob@example.test") == [250]
    assert (await content(client)).startswith("250")
    assert edge.server.shadows.under_way == 2
    await edge.server.close()
    assert edge.server.shadows.under_way == 0
    await edge.until(lambda: not [task for task in asyncio.all_tasks() if "look_up" in repr(task)])
