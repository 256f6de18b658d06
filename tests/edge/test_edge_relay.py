"""Who may send to whom: the open-relay probes, client rules, and what the header can(not) do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gatepost.core.configuration import ClientRule
from gatepost.core.manifest.mail_domain import UnknownAction

if TYPE_CHECKING:
    from conftest import Edge, MakeEdge

TABLE = yaml.safe_load((Path(__file__).parent.parent / "data/relay/probes.yml").read_text("utf-8"))
PROBES = TABLE["probes"]


def fill(text: str, **names: str) -> str:
    return text.format(**{**TABLE["defaults"], **names})


async def refuses_all_probes(edge: Edge, **names: str) -> None:
    client = await edge.client()
    for probe in PROBES:
        assert (await client.ask("RSET")).startswith("250")
        mail = await client.ask(f"MAIL FROM:<{fill(probe['mail_from'], **names)}>")
        if mail.startswith("250"):
            # A real recipient first: what is refused is this probe, not the transaction.
            assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")
            reply = await client.ask(f"RCPT TO:<{fill(probe['rcpt_to'], **names)}>")
            assert int(reply[0]) in TABLE["expected_all"]["rcpt_reply_class"], (probe["name"], reply)
            (session,) = edge.server.sessions
            assert session.transaction is not None
            assert [recipient.address for recipient in session.transaction.recipients.values()] == [
                "bob@example.test"
            ]
        else:
            assert mail[0] in "45", (probe["name"], mail)


@pytest.mark.requirement("S1-2")
@pytest.mark.requirement("S3-4")
async def test_no_probe_gets_through_by_default(make_edge: MakeEdge) -> None:
    """Fails without a refusal of each of the 16 known forms of a foreign recipient, under the default policy."""
    await refuses_all_probes(await make_edge(errors_before_disconnect=100))


async def test_no_probe_gets_through_where_the_host_is_a_domain(make_edge: MakeEdge) -> None:
    """The server's own name as a served domain turns no % or ! into a route."""
    edge = await make_edge(
        errors_before_disconnect=100, domains=(make_edge.domain(), make_edge.domain("mx.example.test"))
    )
    await refuses_all_probes(edge)


async def test_percent_and_bang_at_a_served_domain_are_local_parts(make_edge: MakeEdge) -> None:
    """user%foreign@served is just an unknown user, or the one who really has that name."""
    edge = await make_edge(errors_before_disconnect=100)
    edge.directory.add("odd%name@example.test")
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    for local in ("relaytest%far.example", "far.example!relaytest", '"relaytest@far.example"'):
        assert (await client.ask(f"RCPT TO:<{local}@example.test>")).startswith("550 5.1.1")
    assert (await client.ask("RCPT TO:<odd%name@example.test>")).startswith("250")


INSIDE = (ClientRule(("127.0.0.0/8",), ("Local", "other.example")),)
ELSEWHERE = (ClientRule(("192.0.2.0/24",), ("Local",)),)


@pytest.mark.requirement("S1-3")
@pytest.mark.requirement("S0-18")
@pytest.mark.parametrize(
    ("rules", "sender", "expected"),
    [
        (INSIDE, "bob@example.test", "250"),
        (INSIDE, "anybody@other.example", "250"),
        (INSIDE, "stranger@far.example", "550 5.7.1"),
        (INSIDE, "bob@sub.example.test", "550 5.7.1"),
        (INSIDE, "", "250"),
        (ELSEWHERE, "", "550 5.7.1"),
        (ELSEWHERE, "bob@example.test", "550 5.7.1"),
        ((), "bob@example.test", "550 5.7.1"),
    ],
    ids=["local", "listed", "foreign", "subdomain", "null", "null-outside", "other-network", "no-rule"],
)
async def test_relay_needs_the_network_and_the_sender_domain(
    make_edge: MakeEdge, rules: tuple[ClientRule, ...], sender: str, expected: str
) -> None:
    """Outside to outside is refused, inside to outside works. Fails without both halves of the rule counting."""
    edge = await make_edge(relay_clients=rules)
    client = await edge.client()
    assert (await client.ask(f"MAIL FROM:<{sender}>")).startswith("250")
    assert (await client.ask("RCPT TO:<friend@far.example>")).startswith(expected)


@pytest.mark.requirement("S1-5")
async def test_the_header_has_no_say(make_edge: MakeEdge) -> None:
    """Fails without the decision being the address's and the envelope's alone, whatever From: and To: say."""
    edge = await make_edge(relay_clients=ELSEWHERE)
    client = await edge.client()
    assert (await client.ask("MAIL FROM:<bob@example.test>")).startswith("250")
    assert (await client.ask("RCPT TO:<friend@far.example>")).startswith("550 5.7.1")
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")
    assert (await client.ask("DATA")).startswith("354")
    client.send(b"From: bob@example.test\r\nTo: friend@far.example\r\nBcc: friend@far.example\r\n\r\n.\r\n")
    assert (await client.reply()).startswith("250")
    ((envelope, _),) = edge.messages()
    assert [recipient.address for recipient in envelope.recipients] == ["bob@example.test"]


async def test_own_host_and_literals_even_for_clients_that_may_relay(make_edge: MakeEdge) -> None:
    """What could only come back, or asks us to route, is denied to everybody; a foreign literal is relaying."""
    edge = await make_edge(relay_clients=INSIDE, errors_before_disconnect=100)
    client = await edge.client()
    await client.ask("MAIL FROM:<bob@example.test>")
    for denied in (
        "bob@mx.example.test",
        "bob@[127.0.0.1]",
        "friend%far.example@mx.example.test",
        "friend%far.example@[192.0.2.1]",
        "far.example!friend@[192.0.2.1]",
        '"friend@far.example"@[192.0.2.1]',
    ):
        assert (await client.ask(f"RCPT TO:<{denied}>")).startswith("550 5.7.1"), denied
    assert (await client.ask("RCPT TO:<friend@[192.0.2.1]>")).startswith("250")


@pytest.mark.parametrize(
    ("facts", "address", "expected"),
    [
        ({}, "nobody@example.test", "550 5.1.1"),
        ({"unknown": UnknownAction.DELIVER_TO, "unknown_deliver_to": "bob@example.test"}, "x@example.test", "250"),
        ({"unknown": UnknownAction.DISCARD}, "x@example.test", "250"),
        ({"source_kind": "Any", "directory": ""}, "x@example.test", "250"),
        ({"source_kind": "Static", "directory": "", "static": ("x@example.test",)}, "X@example.test", "250"),
        ({"source_kind": "Static", "directory": "", "static": ("x@example.test",)}, "y@example.test", "550 5.1.1"),
        ({"aliases": {"team": ("bob@example.test",)}}, "Team@example.test", "250"),
        ({"alias_domains": ("example.invalid",)}, "bob@example.invalid", "250"),
        ({"subdomains": True}, "bob@dept.example.test", "550 5.1.1"),
        ({"directory": "none"}, "bob@example.test", "451 4.4.3"),
    ],
)
async def test_recipients_of_a_served_domain(
    make_edge: MakeEdge, facts: dict[str, Any], address: str, expected: str
) -> None:
    """Every kind of recipient source and what it does with an address it has or has not."""
    edge = await make_edge(domains=(make_edge.domain(**facts),))
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    assert (await client.ask(f"RCPT TO:<{address}>")).startswith(expected)


@pytest.mark.requirement("S4-69")
async def test_codes_of_bad_destination_mailboxes(edge: Edge) -> None:
    """Fails without X.1.1 for an unknown user, X.2.1 for a disabled, X.2.2 for a full one, each with its class."""
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    assert (await client.ask("RCPT TO:<nobody@example.test>")).startswith("550 5.1.1")
    assert (await client.ask("RCPT TO:<gone@example.test>")).startswith("550 5.2.1")
    assert (await client.ask("RCPT TO:<full@example.test>")).startswith("452 4.2.2")
    edge.directory.away = True
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("451 4.4.3")


@pytest.mark.requirement("S0-2")
async def test_mail_to_a_disabled_account_is_not_accepted(edge: Edge) -> None:
    """Fails without the refusal of a disabled account's address, also with a detail behind it."""
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    assert (await client.ask("RCPT TO:<gone@example.test>")).startswith("550 5.2.1")
    assert (await client.ask("RCPT TO:<gone+x@example.test>")).startswith("550 5.2.1")
    assert (await client.ask("DATA")).startswith("503")


@pytest.mark.requirement("S1-9")
async def test_a_thousand_recipients_meet_the_cap(edge: Edge) -> None:
    """Fails without a cap: 100 are taken (RFC 5321 4.5.3.1.8), 900 told to come separately; 100 get the mail."""
    for number in range(1000):
        edge.directory.add(f"u{number}@example.test")
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    client.send("".join(f"RCPT TO:<u{number}@example.test>\r\n" for number in range(1000)))
    codes = [(await client.reply())[:9] for _ in range(1000)]
    assert codes == ["250 2.1.5"] * 100 + ["452 4.5.3"] * 900
    assert (await client.ask("DATA")).startswith("354")
    client.send(b".\r\n")
    assert (await client.reply()).startswith("250")
    ((envelope, _),) = edge.messages()
    assert [recipient.address for recipient in envelope.recipients] == [
        f"u{number}@example.test" for number in range(100)
    ]
