"""A Shadow that says what the policy in force says agrees with everything that is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gatepost.core.access.source import read_line
from gatepost.core.checks.access import AccessConfig
from gatepost.core.checks.authentication import AuthenticationPolicy, DmarcActions, SpfActions
from gatepost.core.checks.connection import ConnectionRules
from gatepost.core.checks.greylist import GreylistPolicy
from gatepost.core.checks.header_rules import HeaderRule
from gatepost.core.checks.helo import HeloPolicy, HeloTest, Probe
from gatepost.core.checks.reverse_dns import Require, ReverseDns
from gatepost.core.checks.sender_domain import SenderDomainPolicy
from gatepost.core.configuration import Beside, ClientRule, ListenerPolicy
from gatepost.core.configuration_content import ContentPolicy
from gatepost.core.manifest.actions import Action
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import MakeEdge

NAMELESS = ReverseDns(Require.PTR, Action.REJECT)
RELAYS = (ClientRule(("127.0.0.0/8",), ("example.org",)),)


def rules(*lines: str) -> AccessConfig:
    entries = [read_line(line) for line in lines]
    return AccessConfig(tuple(entry for entry in entries if entry is not None), clients_may_relay=True)


POLICIES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no name": {"reverse_dns": NAMELESS},
    "no name, tagged": {"reverse_dns": ReverseDns(Require.PTR, Action.TAG)},
    "no name, held": {"reverse_dns": ReverseDns(Require.PTR, Action.QUARANTINE)},
    "no name, dropped": {"reverse_dns": ReverseDns(Require.PTR, Action.DISCARD)},
    "denied": {"connection": ConnectionRules(deny=("127.0.0.0/8",))},
    "allowed": {
        "connection": ConnectionRules(allow=("127.0.0.1",)),
        "reverse_dns": NAMELESS,
        "greylist": GreylistPolicy(),
    },
    "greylisted": {"greylist": GreylistPolicy()},
    "own clients": {"relay_clients": RELAYS, "reverse_dns": NAMELESS, "greylist": GreylistPolicy()},
    "helo": {"helo": HeloPolicy((HeloTest(Probe.RESOLVES, Action.REJECT),))},
    "sender's domain": {"sender_domain": SenderDomainPolicy(Action.DEFER)},
    "a recipient's rule": {
        "access": rules("To:bob@example.test\tREJECT", "To:alice@\tOK"),
        "reverse_dns": NAMELESS,
    },
    "a recipient's exception": {"access": rules("To:bob@example.test\tOK"), "greylist": GreylistPolicy()},
    "a sender's rule": {"access": rules("From:example.org\tDISCARD")},
    "a client's rule": {"access": rules("Connect:127.0.0.1\tREJECT")},
    "a client's right": {"access": rules("Connect:127.0.0.1\tRELAY"), "reverse_dns": NAMELESS},
    "a recipient's right": {"access": rules("To:elsewhere.test\tRELAY")},
    "spf": {"authentication": AuthenticationPolicy(spf=SpfActions(fail=Action.REJECT))},
    "dmarc": {"authentication": AuthenticationPolicy(dmarc=DmarcActions(reject=Action.REJECT))},
    "dmarc, held": {"authentication": AuthenticationPolicy()},
    "header": {"content": ContentPolicy(headers=(HeaderRule("subject", ("subject",), "x", Action.REJECT),))},
    "header, tagged": {"content": ContentPolicy(headers=(HeaderRule("subject", ("subject",), "x", Action.TAG),))},
    "header, dropped": {
        "content": ContentPolicy(headers=(HeaderRule("subject", ("subject",), "x", Action.DISCARD),))
    },
}
RECIPIENTS = (
    "bob@example.test",
    "alice@example.test",
    "postmaster@example.test",
    "x@elsewhere.test",
    "no@example.test",
)


@pytest.mark.parametrize("name", POLICIES)
async def test_the_same_policy_in_shadow_agrees(name: str, make_edge: MakeEdge) -> None:
    """Fails for a verdict that a Shadow reaches otherwise than the policy in force does."""
    policy = POLICIES[name]
    edge = await make_edge(**policy)
    edge.resolver.add("_dmarc.bank.test", "TXT", "v=DMARC1; p=reject")
    edge.resolver.add("example.org", "TXT", "v=spf1 -all")
    await edge.until(lambda: edge.state is not None and edge.state.current)
    edge.lay(beside=(Beside(ListenerPolicy("mx", origin="RelayPolicy default/same", **policy), shadow=True),))
    before = dict(metrics.SHADOW.values)
    client = await edge.client()
    assert await client.code("MAIL FROM:<x@example.org>") == 250
    answers = [await client.code(f"RCPT TO:<{recipient}>") for recipient in RECIPIENTS]
    assert answers[2] == 250  # RFC 2142
    assert await client.code("DATA") == 354
    await client.ask("From: <ceo@bank.test>\r\nSubject: x\r\n\r\nHello\r\n.")
    await edge.server.shadows.settle()
    told = {key: count - before.get(key, 0) for key, count in metrics.SHADOW.values.items()}
    disagreed = {key for key, count in told.items() if count and key[3] == "no"}
    # What is taken at RCPT and judged at the end is compared there.
    assert {key for key in disagreed if key[1] == "recipient"} <= set()
    assert disagreed == set()
    assert sum(told.values()) >= 3
