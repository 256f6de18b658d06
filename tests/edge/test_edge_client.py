"""Verdicts on a client: gathered in the background, applied at RCPT, carried in the envelope, and who is exempt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from gatepost.backends.resolver_table import TableResolver
from gatepost.core.checks.connection import ConnectionRules
from gatepost.core.checks.dnsbl import DnsblList, DnsblPolicy
from gatepost.core.checks.helo import HeloPolicy, HeloTest, Probe
from gatepost.core.checks.reverse_dns import Require, ReverseDns
from gatepost.core.checks.sender_domain import SenderDomainPolicy
from gatepost.core.checks.verdict import Verdict
from gatepost.core.configuration import ClientRule
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.manifest.settings import Role
from gatepost.core.ports.resolver import Answer
from gatepost.edge import client_verdicts
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

ZONE = "bl.example"
OTHER = "127.0.0.2"  # another address of this machine for the client
LISTS = DnsblPolicy((DnsblList(ZONE),))
NO_NAME = ReverseDns(Require.PTR, Action.REJECT)
EXISTS = SenderDomainPolicy(Action.REJECT)
MISMATCH = HeloPolicy((HeloTest(Probe.MATCHES_CLIENT, Action.REJECT),))


class HeldResolver(TableResolver):
    """Answers nothing until `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.held: list[str] = []

    async def query(self, name: str, kind: str) -> Answer:
        self.held.append(name)
        await self.gate.wait()
        return await super().query(name, kind)


def list_client(edge: Edge, *codes: str) -> None:
    edge.resolver.add(f"1.0.0.127.{ZONE}", "A", *(codes or ("127.0.0.2",)))


async def mail(client: Client, sender: str = "alice@example.org") -> None:
    assert (await client.ask(f"MAIL FROM:<{sender}>")).startswith("250")


async def send(client: Client, *recipients: str) -> str:
    await client.begin(*recipients)
    client.send("Subject: x\r\n\r\nhello\r\n.\r\n")
    return await client.reply()


def judged(edge: Edge) -> list[dict[str, str]]:
    return [event.facts for event in edge.events.all if event.kind == "judged"]


async def test_an_empty_policy_asks_nothing_and_keeps_nothing(edge: Edge) -> None:
    client = await edge.client()
    assert (await send(client)).startswith("250")
    assert edge.resolver.asked == []
    (session,) = edge.server.sessions
    assert session.verdicts is None
    ((envelope, _),) = edge.messages()
    assert (envelope.tags, envelope.quarantine, envelope.recipients[0].quarantine) == ((), "", "")


async def test_nobody_waits_before_rcpt(make_edge: MakeEdge) -> None:
    """Look-ups run while the client greets; the first RCPT waits for all of them, once."""
    resolver = HeldResolver()
    lists = DnsblPolicy(tuple(DnsblList(f"{name}.example") for name in "abc"), deadline=60.0)
    edge = await make_edge(resolver=resolver, dnsbl=lists, reverse_dns=NO_NAME, sender_domain=SenderDomainPolicy())
    client = await edge.client()
    await mail(client)
    assert resolver.held == [
        "1.0.0.127.in-addr.arpa",
        *(f"1.0.0.127.{name}.example" for name in "abc"),
    ]
    client.send("RCPT TO:<bob@example.test>\r\n")
    (session,) = edge.server.sessions
    await edge.until(lambda: session.task is not None)
    resolver.add_ptr("127.0.0.1", "client.example.org")
    resolver.gate.set()
    assert (await client.reply()).startswith("250")
    asked = len(resolver.held)
    assert (await client.ask("RCPT TO:<alice@example.test>")).startswith("250")
    assert len(resolver.held) == asked


async def test_a_client_that_goes_takes_its_questions_along(make_edge: MakeEdge) -> None:
    resolver = HeldResolver()
    edge = await make_edge(resolver=resolver, dnsbl=LISTS)
    client = await edge.client()
    await mail(client)
    client.send("RCPT TO:<bob@example.test>\r\n")
    (session,) = edge.server.sessions
    await edge.until(lambda: session.task is not None)
    verdicts = session.verdicts
    assert verdicts is not None
    client.reset()
    await edge.until(lambda: verdicts.settled and not edge.server.sessions)


@pytest.mark.requirement("S0-30")
async def test_a_listed_client_is_refused_and_told_why(make_edge: MakeEdge) -> None:
    """Fails without lists that refuse a client at the first contact, each chosen by itself."""
    edge = await make_edge(dnsbl=LISTS)
    list_client(edge)
    client = await edge.client()
    await mail(client)
    reply = await client.ask("RCPT TO:<bob@example.test>")
    assert reply.startswith(f"550 5.7.1 <bob@example.test>: 127.0.0.1 is listed by {ZONE} (dnsbl) ")
    assert (await client.ask("RCPT TO:<alice@example.test>")).startswith("550")
    (facts,) = judged(edge)
    assert facts | {"client": "127.0.0.1", "check": "dnsbl", "action": "Reject", ZONE: "127.0.0.2"} == facts
    assert not edge.directory.asked.is_set(), "a refused client learnt who is here"


async def test_role_addresses_stay_reachable_for_whoever_is_refused(make_edge: MakeEdge) -> None:
    """Fails without the exception for postmaster, abuse and hostmaster of a served domain."""
    edge = await make_edge(dnsbl=LISTS, connection=ConnectionRules(deny=("127.0.0.1",)))
    list_client(edge)
    client = await edge.client()
    await mail(client)
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("550")
    assert (await client.ask("RCPT TO:<postmaster@far.example>")).startswith("550 5.7.1")
    for name in ("postmaster", "abuse"):
        assert (await client.ask(f"RCPT TO:<{name}@example.test>")).startswith("250")


@pytest.mark.parametrize("action", [Action.TAG, Action.QUARANTINE, Action.DISCARD, Action.ACCEPT])
async def test_actions_that_let_the_client_go_on(make_edge: MakeEdge, action: Action) -> None:
    edge = await make_edge(dnsbl=DnsblPolicy((DnsblList(ZONE, action=action),)))
    list_client(edge)
    client = await edge.client()
    assert (await send(client, "bob@example.test", "postmaster@example.test")).startswith("250")
    ((envelope, body),) = edge.messages()
    told = f"dnsbl: {ZONE}"
    assert body == b"Subject: x\r\n\r\nhello\r\n"
    assert envelope.tags == ((told,) if action is Action.TAG else ())
    assert envelope.prepend.startswith(f"X-Gatepost-Tag: dnsbl; {ZONE}\r\n") is (action is Action.TAG)
    stopped = {recipient.address: recipient.quarantine for recipient in envelope.recipients}
    if action is Action.DISCARD:
        assert stopped == {"postmaster@example.test": ""}
    else:
        reason = told if action is Action.QUARANTINE else ""
        assert stopped == {"bob@example.test": reason, "postmaster@example.test": ""}
    assert [facts["action"] for facts in judged(edge)] == [action.value]


async def test_a_message_that_is_discarded_for_all_is_answered_and_kept_nowhere(make_edge: MakeEdge) -> None:
    edge = await make_edge(dnsbl=DnsblPolicy((DnsblList(ZONE, action=Action.DISCARD),)), max_recipients=2)
    list_client(edge)
    client = await edge.client()
    await client.begin("bob@example.test", "alice@example.test")
    client.send("Subject: x\r\n\r\nhello\r\n.\r\n")
    assert (await client.reply()).startswith("250 2.0.0 Ok: queued as ")
    assert edge.messages() == []
    discarded = [(event.recipient, event.facts["check"]) for event in edge.events.all if event.kind == "discarded"]
    assert discarded == [("bob@example.test", "dnsbl"), ("alice@example.test", "dnsbl")]
    # They count as recipients, and whom nobody may relay to is not answered with 250 for it.
    await mail(client)
    assert (await client.ask("RCPT TO:<x@far.example>")).startswith("550 5.7.1")
    assert (await client.ask("RCPT TO:<nobody@example.test>")).startswith("550 5.1.1")
    for recipient in ("bob", "alice"):
        assert (await client.ask(f"RCPT TO:<{recipient}@example.test>")).startswith("250")
    assert (await client.ask("RCPT TO:<sales@example.test>")).startswith("452")


@pytest.mark.requirement("S3-11")
async def test_own_clients_are_not_looked_into(make_edge: MakeEdge) -> None:
    """By network or by login. Fails without the exemption of own clients, whose names are often wrong."""
    checks: dict[str, Any] = {"dnsbl": LISTS, "reverse_dns": NO_NAME, "helo": MISMATCH}
    rule = ClientRule(("127.0.0.1",), ("Local",))
    edge = await make_edge(relay_clients=(rule,), sender_domain=SenderDomainPolicy(Action.REJECT), **checks)
    list_client(edge)
    client = await edge.client()
    await mail(client, "bob@example.test")
    assert (await client.ask("RCPT TO:<friend@far.example>")).startswith("250")
    stranger = await (await edge.connect(local_addr=(OTHER, 0))).hello()
    await mail(stranger)
    assert (await stranger.ask("RCPT TO:<bob@example.test>")).startswith("550")

    login = await make_edge(
        role=Role.SUBMISSION, auth_enabled=True, auth_require_tls=False, auth_directory="people", **checks
    )
    client = await login.client()
    await mail(client)
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("550")
    assert (await client.ask("RSET")).startswith("250")
    assert (await client.ask("AUTH PLAIN AGJvYgBzZWNyZXQtYg==")).startswith("235")
    await mail(client, "bob@example.test")
    assert (await client.ask("RCPT TO:<friend@far.example>")).startswith("250")


@pytest.mark.requirement("S0-32")
async def test_an_allowed_client_is_not_looked_into(make_edge: MakeEdge) -> None:
    """A listed client can be excepted. Fails without connection.allow before the lists."""
    edge = await make_edge(
        connection=ConnectionRules(allow=("127.0.0.1",)), dnsbl=LISTS, reverse_dns=NO_NAME, helo=MISMATCH
    )
    list_client(edge)
    client = await edge.client()
    await mail(client)
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")
    assert judged(edge) == []


@pytest.mark.requirement("S3-9")
@pytest.mark.requirement("S3-12")
async def test_a_mail_domain_is_as_good_a_greeting_as_a_host(make_edge: MakeEdge) -> None:
    """MX beside A and AAAA. Fails without asking for the MX of the name that a client greets with."""
    edge = await make_edge(helo=MISMATCH)
    edge.resolver.add("domain.example", "MX", "10 out.domain.example", "20 gone.domain.example")
    edge.resolver.add("out.domain.example", "A", "127.0.0.1")
    client = await edge.connect()
    await client.reply()
    await client.ask("HELO domain.example")
    await mail(client)
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")
    await client.ask("HELO other.example")
    await mail(client)
    assert " (helo-matches-client) " in await client.ask("RCPT TO:<bob@example.test>")
    edge.resolver.fail("domain.example", "MX")
    await client.ask("HELO domain.example")
    await mail(client)
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")


@pytest.mark.requirement("S4-9")
async def test_a_sender_that_nobody_could_answer(make_edge: MakeEdge) -> None:
    """Fails without the question whether the sender's domain exists, or without telling failure from absence."""
    edge = await make_edge(sender_domain=SenderDomainPolicy(Action.REJECT))
    edge.resolver.add("far.example", "A", "192.0.2.1")
    edge.resolver.fail("away.example")
    client = await edge.client()
    answers = {}
    for domain in ("no-such.example", "far.example", "away.example"):
        await mail(client, f"a@{domain}")
        answers[domain] = (await client.ask("RCPT TO:<bob@example.test>"))[:9]
        await client.ask("RSET")
    assert answers == {"no-such.example": "550 5.1.8", "far.example": "250 2.1.5", "away.example": "451 4.4.3"}


@pytest.mark.parametrize(
    ("on_error", "code"), [(OnError.IGNORE, "250"), (OnError.ACCEPT, "250"), (OnError.TEMPFAIL, "451")]
)
async def test_a_list_that_never_answers_costs_its_deadline_and_no_more(
    make_edge: MakeEdge, on_error: OnError, code: str
) -> None:
    lists = tuple(DnsblList(f"{name}.example", on_error=on_error) for name in "abcdefgh")
    edge = await make_edge(resolver=HeldResolver(), dnsbl=DnsblPolicy(lists, deadline=0.05))
    failed = metrics.DNSBL.values.get(("a.example", "failed"), 0)
    client = await edge.client()
    await mail(client)
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith(code)
    assert metrics.DNSBL.values["a.example", "failed"] == failed + 1


async def test_a_fault_of_ours_refuses_nobody(make_edge: MakeEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(client_verdicts, "look_up_client", broken)
    edge = await make_edge(dnsbl=LISTS)
    client = await edge.client()
    await mail(client)
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")


async def test_answers_that_are_nonsense(make_edge: MakeEdge) -> None:
    edge = await make_edge(dnsbl=LISTS, reverse_dns=ReverseDns(Require.CONFIRMED, Action.TAG), helo=MISMATCH)
    list_client(edge, "not.an.address", "127.0.0.1")
    edge.resolver.add_ptr("127.0.0.1", *(f"n{number}.example" for number in range(500)))
    edge.resolver.add("client.example.org", "MX", *(f"10 m{number}.example" for number in range(500)))
    client = await edge.client()
    await mail(client)
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("550 5.7.1")  # of the greeting
    assert len(edge.resolver.asked) < 60, "a stranger decides how much is asked"


async def test_a_changed_policy_judges_anew(make_edge: MakeEdge) -> None:
    edge = await make_edge()
    list_client(edge)
    client = await edge.client()
    await mail(client)
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")
    edge.configure(dnsbl=LISTS)
    assert (await client.ask("RCPT TO:<alice@example.test>")).startswith("250"), "pinned at MAIL"
    assert (await client.ask("RSET")).startswith("250")
    await mail(client)
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("550")
    edge.configure(dnsbl=DnsblPolicy())
    assert (await client.ask("RSET")).startswith("250")
    await mail(client)
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")


async def test_verdicts_of_other_checks_join(make_edge: MakeEdge) -> None:
    """What an access rule says stands beside what was looked up, and can exempt from it."""
    edge = await make_edge(dnsbl=LISTS)
    list_client(edge)
    client = await edge.client()
    (session,) = edge.server.sessions
    verdicts = client_verdicts.verdicts_of(session)
    verdicts.exempt()
    verdicts.add(Verdict("access", Action.TAG, reason="a friend"))
    await mail(client)
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")
    assert session.transaction is not None
    assert list(session.transaction.tags) == ["access: a friend"]
    session.transaction.verdicts.append(Verdict("access", Action.DEFER))
    assert (await client.ask("RCPT TO:<alice@example.test>")).startswith("450 4.7.1")
    assert (await client.ask("RCPT TO:<postmaster@example.test>")).startswith("250")


@pytest.mark.requirement("S3-15")
@pytest.mark.requirement("S2-16")
async def test_both_stages_in_one_session(make_edge: MakeEdge) -> None:
    """First contact and sender, before any content. Fails without verdicts on the sender beside the client's."""
    edge = await make_edge(dnsbl=DnsblPolicy((DnsblList(ZONE),), threshold=2), sender_domain=EXISTS)
    list_client(edge)
    edge.resolver.add("good.example", "A", "192.0.2.1")
    client = await edge.client()
    codes: list[Sequence[str]] = []
    for domain in ("no-such.example", "good.example"):
        await mail(client, f"a@{domain}")
        codes.append((await client.ask("RCPT TO:<bob@example.test>")).split()[:2])
        assert (await client.ask("DATA")).startswith("503" if domain == "no-such.example" else "354")
        if domain == "no-such.example":
            await client.ask("RSET")
    assert codes == [["550", "5.1.8"], ["250", "2.1.5"]]
