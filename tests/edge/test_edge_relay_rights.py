"""Rights to relay beside AUTH and networks: secondary MX, POP before SMTP; and mail for unknown addresses."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from gatepost.core.access.source import read_line
from gatepost.core.bans import Ban, BanCause, client_key
from gatepost.core.call_ahead import CallAheadPlan
from gatepost.core.checks.access import AccessConfig
from gatepost.core.checks.greylist import GreylistPolicy
from gatepost.core.configuration import ClientRule
from gatepost.core.envelope import Trust
from gatepost.core.event_kinds import REFUSED
from gatepost.core.manifest.mail_domain import UnknownAction
from gatepost.core.manifest.relay_policy import RequireFor
from gatepost.core.manifest.settings import Role
from gatepost.core.pop_before_smtp import POP_LOGIN, PopLogin
from gatepost.core.ports.directory import DirectoryUnavailable
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

    from gatepost.core.address import Address

NOW_MS = 1_790_000_000_000
AUTH: dict[str, Any] = {"auth_enabled": True, "auth_directory": "people", "auth_require_tls": False}


async def log_in(client: Client) -> None:
    response = base64.b64encode(b"\0alice\0secret-a").decode()
    assert (await client.ask(f"AUTH PLAIN {response}")).startswith("235")


async def answers(client: Client, sender: str, *recipients: str) -> list[str]:
    """The codes of RCPT for each recipient in one transaction."""
    await client.ask("RSET")
    assert (await client.ask(f"MAIL FROM:<{sender}>")).startswith("250")
    return [(await client.ask(f"RCPT TO:<{recipient}>"))[:9] for recipient in recipients]


async def content(client: Client) -> None:
    assert (await client.ask("DATA")).startswith("354")
    client.send(b"Subject: x\r\n\r\nbody\r\n.\r\n")
    assert (await client.reply()).startswith("250")


# -- secondary MX


@pytest.mark.requirement("S1-4")
async def test_secondary_mx_takes_mail_for_a_friends_domain_from_everybody(make_edge: MakeEdge) -> None:
    """Fails without outside-to-outside being relayed for exactly the domain whose secondary MX we are, and without
    the sender staying the stranger that it is: no notification goes to an unverified return path."""
    edge = await make_edge(secondary_for=("friend.example",))
    client = await edge.client()
    assert await answers(
        client,
        "stranger@far.example",
        "carol@friend.example",
        "carol@elsewhere.example",
        "carol%elsewhere.example@friend.example",
        "bob@example.test",
    ) == ["250 2.1.5", "550 5.7.1", "550 5.7.1", "250 2.1.5"]
    await content(client)
    ((envelope, _),) = edge.messages()
    assert [one.address for one in envelope.recipients] == ["carol@friend.example", "bob@example.test"]
    assert envelope.trust is Trust.UNVERIFIED


async def test_secondary_mx_and_an_own_right(make_edge: MakeEdge) -> None:
    """Who may relay anyway is trusted as ever."""
    edge = await make_edge(secondary_for=("friend.example",), **AUTH)
    client = await edge.client()
    await log_in(client)
    assert await answers(client, "alice@example.test", "carol@friend.example") == ["250 2.1.5"]
    await content(client)
    assert edge.messages()[0][0].trust is Trust.AUTHENTICATED


async def test_limits_and_bans_hold_for_a_secondary_mx(make_edge: MakeEdge) -> None:
    edge = await make_edge(
        secondary_for=("friend.example",), max_recipients=1, greylist=GreylistPolicy(), auth_enabled=True
    )
    assert edge.state is not None
    await edge.until(lambda: edge.state is not None and edge.state.current)
    client = await edge.client()
    assert await answers(client, "x@far.example", "carol@friend.example") == ["450 4.7.1"]
    edge.configure(greylist=None)
    codes = await answers(client, "x@far.example", "carol@friend.example", "dave@friend.example")
    assert codes == ["250 2.1.5", "452 4.5.3"]
    edge.server.bans.put(client_key("127.0.0.0/24"), Ban(NOW_MS, NOW_MS + 1000, BanCause.HARVEST))
    assert (await answers(client, "x@far.example", "carol@friend.example"))[0] == "421 4.7.1"


async def test_the_right_ends_with_the_policy(make_edge: MakeEdge) -> None:
    edge = await make_edge(secondary_for=("friend.example",))
    client = await edge.client()
    assert await answers(client, "x@far.example", "carol@friend.example") == ["250 2.1.5"]
    edge.configure(secondary_for=())
    assert (await client.ask("DATA")).startswith("421 4.7.0")


# -- POP before SMTP


async def told(edge: Edge, address: str, since_ms: int = NOW_MS) -> None:
    assert edge.state is not None
    await edge.state.put(POP_LOGIN, address, PopLogin(since_ms, "alice"), NOW_MS + 3_600_000, 10.0)
    state = edge.state
    await edge.until(lambda: state.get(POP_LOGIN, address, NOW_MS) == PopLogin(since_ms, "alice"))


@pytest.mark.requirement("S0-16")
async def test_a_mailbox_login_lets_its_address_relay_for_a_while(make_edge: MakeEdge) -> None:
    """Fails without the address of a fresh login relaying, with senders of ours only, and only in the window."""
    edge = await make_edge(role=Role.SUBMISSION, pop_before_smtp=600.0)
    client = await edge.client()
    friend = "friend@far.example"
    assert await answers(client, "alice@example.test", friend) == ["550 5.7.1"]
    await told(edge, "192.0.2.1")
    assert await answers(client, "alice@example.test", friend) == ["550 5.7.1"], "another address"
    await told(edge, "127.0.0.1", NOW_MS - 600_000)
    assert await answers(client, "alice@example.test", friend) == ["550 5.7.1"], "too long ago"
    await told(edge, "127.0.0.1", NOW_MS - 599_000)
    assert await answers(client, "x@far.example", friend) == ["550 5.7.1"], "not a sender of ours"
    assert await answers(client, "alice@example.test", friend) == ["250 2.1.5"]
    await content(client)
    edge.configure(pop_before_smtp=0.0)
    assert await answers(client, "alice@example.test", friend) == ["550 5.7.1"]


async def test_a_policy_without_a_window_does_not_ask(make_edge: MakeEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an empty policy nothing is looked up."""
    edge = await make_edge()
    await told(edge, "127.0.0.1")
    assert edge.state is not None
    monkeypatch.setattr(edge.state, "get", None)
    client = await edge.client()
    assert await answers(client, "alice@example.test", "friend@far.example", "bob@example.test") == [
        "550 5.7.1",
        "250 2.1.5",
    ]


# -- what is there by default, and by role


@pytest.mark.requirement("S3-1")
async def test_an_unknown_host_gets_the_closed_template(edge: Edge) -> None:
    """Fails without the default for every host: its mail is accepted, for local addresses only, and each refused
    recipient is told in the log, the events and the metrics."""
    client = await edge.client()
    before = metrics.REPLIES.values.get(("mx", "relay", "550"), 0)
    codes = await answers(client, "x@far.example", "bob@example.test", "friend@far.example", "nobody@example.test")
    assert codes == ["250 2.1.5", "550 5.7.1", "550 5.1.1"]
    refused = [(one.recipient, one.facts["check"]) for one in edge.events.all if one.kind == REFUSED]
    assert refused == [("friend@far.example", "relay"), ("nobody@example.test", "recipient")]
    assert metrics.REPLIES.values["mx", "relay", "550"] == before + 1


@pytest.mark.requirement("S3-2")
@pytest.mark.requirement("S1-6")
@pytest.mark.parametrize(
    ("rule", "name", "expected"),
    [
        ("Connect:127.0.0.1\tRELAY", "", ["250 2.1.5", "250 2.1.5"]),
        ("Connect:127.0.0\tRELAY", "", ["250 2.1.5", "250 2.1.5"]),
        ("Connect:pc7.example.test\tRELAY", "pc7.example.test", ["250 2.1.5", "250 2.1.5"]),
        ("Connect:example.test\tRELAY", "pc7.example.test", ["250 2.1.5", "250 2.1.5"]),
        ("Connect:example.test\tRELAY", "pc7.liar.example", ["250 2.1.5", "550 5.7.1"]),
        ("Connect:pc7.example.test\tOK", "pc7.example.test", ["250 2.1.5", "550 5.7.1"]),
        ("Connect:pc7.example.test\tREJECT", "pc7.example.test", ["550 5.7.1", "550 5.7.1"]),
    ],
)
async def test_each_host_has_rights_of_its_own(
    make_edge: MakeEdge, rule: str, name: str, expected: list[str]
) -> None:
    """Fails without entries for single hosts, by address, network, host name or domain name; a name counts only
    when it leads back to the address, and is resolved anew by its TTL."""
    edge = await make_edge(access=AccessConfig((read_line(rule),), clients_may_relay=True))
    if name:
        edge.resolver.add_ptr("127.0.0.1", name)
        edge.resolver.add("pc7.example.test", "A", "127.0.0.1")
        edge.resolver.add("pc7.liar.example", "A", "192.0.2.99")
    client = await edge.client()
    assert await answers(client, "x@far.example", "bob@example.test", "friend@far.example") == expected


@pytest.mark.requirement("S0-13")
async def test_insiders_by_address_and_outsiders_by_authentication(make_edge: MakeEdge) -> None:
    """Fails without both ways on one listener: who is in a listed network sends without AUTH, others with it."""
    friend = "friend@far.example"
    inside = await make_edge(relay_clients=(ClientRule(("127.0.0.1",), ("Local",)),), **AUTH)
    assert await answers(await inside.client(), "alice@example.test", friend) == ["250 2.1.5"]
    outside = await make_edge(relay_clients=(ClientRule(("192.0.2.0/24",), ("Local",)),), **AUTH)
    client = await outside.client()
    assert await answers(client, "alice@example.test", friend) == ["550 5.7.1"]
    await client.ask("RSET")
    await log_in(client)
    assert await answers(client, "alice@example.test", friend) == ["250 2.1.5"]


@pytest.mark.requirement("S2-3")
@pytest.mark.requirement("S4-6")
async def test_submission_is_apart_from_receiving(make_edge: MakeEdge) -> None:
    """Fails without two roles: the MX takes mail for local addresses from everybody and nothing else; submission
    takes nothing without AUTH, and with `connection.deny` of all but the own site nothing from elsewhere."""
    mx = await make_edge()
    assert await answers(await mx.client(), "x@far.example", "bob@example.test", "friend@far.example") == [
        "250 2.1.5",
        "550 5.7.1",
    ]
    submission = await make_edge(role=Role.SUBMISSION, auth_require_for=RequireFor.ALL, **AUTH)
    client = await submission.client()
    assert (await client.ask("MAIL FROM:<alice@example.test>")).startswith("530 5.7.0")
    await log_in(client)
    assert await answers(client, "alice@example.test", "friend@far.example") == ["250 2.1.5"]


@pytest.mark.requirement("S1-1")
async def test_an_own_sender_from_outside_is_legitimate_by_default(edge: Edge) -> None:
    """Fails without users being able to send through their provider's server with their own address here."""
    client = await edge.client()
    assert await answers(client, "alice@example.test", "bob@example.test") == ["250 2.1.5"]
    await content(client)


# -- unknown addresses


@pytest.mark.requirement("S0-52")
@pytest.mark.requirement("S0-53")
@pytest.mark.requirement("S3-16")
@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, "550 5.1.1"),
        ({"unknown": UnknownAction.BOUNCE}, "250 2.1.5"),
        ({"unknown": UnknownAction.DELIVER_TO, "unknown_deliver_to": "bob@example.test"}, "250 2.1.5"),
        ({"unknown": UnknownAction.DELIVER_TO, "unknown_deliver_to": "throwaway@example.test"}, "250 2.1.5"),
    ],
)
async def test_unknown_addresses(make_edge: MakeEdge, facts: dict[str, Any], expected: str) -> None:
    """Fails without the choice of a domain: refuse, bounce, or send to a full address, which covers every unknown
    address and hides that it is one; an account that is disabled is not unknown."""
    edge = await make_edge(domains=(make_edge.domain(**facts),))
    codes = await answers(
        await edge.client(), "x@far.example", "a@example.test", "b+c@example.test", "gone@example.test"
    )
    assert codes == [expected, expected, "550 5.2.1"]


class Next:
    """core.ports.call_ahead.CallAhead: the next host as a set of addresses."""

    def __init__(self, *known: str) -> None:
        self.known, self.asked, self.away = set(known), list[str](), False

    async def takes(self, plan: CallAheadPlan, address: Address) -> bool:
        self.asked.append(str(address))
        if self.away:
            raise DirectoryUnavailable("away")
        return address.key in self.known

    async def close(self) -> None: ...


@pytest.mark.requirement("S2-23")
async def test_recipients_are_verified_without_the_primary(make_edge: MakeEdge) -> None:
    """Fails without recipients of a domain that is only passed on being known here: with an own directory nobody
    else is asked; by CallAhead the next host is, its word counts, and without one mail waits at its sender."""
    edge = await make_edge()
    assert await answers(await edge.client(), "x@far.example", "bob@example.test", "nobody@example.test") == [
        "250 2.1.5",
        "550 5.1.1",
    ]
    plan = CallAheadPlan(("[192.0.2.9]",))
    following = Next("bob@example.test", "carol+x@example.test")
    edge = await make_edge(
        domains=(make_edge.domain(source_kind="Any", directory="", call_ahead=plan),), call_ahead=following
    )
    client = await edge.client()
    codes = await answers(
        client,
        "x@far.example",
        "bob@example.test",
        "carol+x@example.test",
        "nobody@example.test",
        "postmaster@example.test",
    )
    assert codes == ["250 2.1.5", "250 2.1.5", "550 5.1.1", "250 2.1.5"]
    assert following.asked == ["bob@example.test", "carol+x@example.test", "nobody@example.test"]
    following.away = True
    assert await answers(client, "x@far.example", "bob@example.test") == ["451 4.4.3"]


async def test_call_ahead_without_anybody_to_ask_is_temporary(make_edge: MakeEdge) -> None:
    plan = CallAheadPlan(("[192.0.2.9]",))
    edge = await make_edge(domains=(make_edge.domain(source_kind="Any", directory="", call_ahead=plan),))
    assert await answers(await edge.client(), "x@far.example", "bob@example.test") == ["451 4.4.3"]
