"""Access rules in the session: who is refused, who relays, who is exempt, what is thrown away, and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from gatepost.core.access.entry import AccessEntry, Tag
from gatepost.core.access.source import read_line, read_table
from gatepost.core.access.table import AccessTable
from gatepost.core.checks.access import AccessConfig, AccessTableConfig
from gatepost.core.event_kinds import REFUSED
from gatepost.core.manifest.actions import Action, OnError

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge


class DictTables:
    """Access tables in a dict: the port's fake."""

    def __init__(self, **texts: str) -> None:
        self.texts = texts
        self.wanted: dict[str, float] = {}
        self._callbacks: list[Callable[[], None]] = []

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def want(self, tables: Mapping[str, float]) -> None:
        self.wanted = dict(tables)

    def table(self, file: str) -> AccessTable | None:
        text = self.texts.get(file)
        return None if text is None else AccessTable(read_table(text, file))

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def change(self, **texts: str) -> None:
        self.texts = texts
        for callback in self._callbacks:
            callback()


def rules(*lines: str, may_relay: bool = True, **facts: Any) -> AccessConfig:
    return AccessConfig(tuple(read_line(line) for line in lines), clients_may_relay=may_relay, **facts)


async def asked(edge: Edge, recipient: str, sender: str = "a@example.org") -> str:
    client = await edge.client()
    assert (await client.ask(f"MAIL FROM:<{sender}>")).startswith("250")
    return await client.ask(f"RCPT TO:<{recipient}>")


@pytest.mark.requirement("S4-18")
@pytest.mark.parametrize(
    ("lines", "recipient", "code"),
    [
        (["127.0.0.1\tRELAY"], "x@far.example", "250"),
        (["Connect:127\tRELAY"], "x@far.example", "250"),
        (["Connect:127\tRELAY", "Connect:127.0.0\tOK"], "x@far.example", "550"),
        (["Connect:127\tRELAY", "Connect:127.0.0\tREJECT"], "x@far.example", "550"),
        (["Connect:127\tRELAY", "Connect:127.0.0\tSKIP"], "x@far.example", "550"),
        (["Connect:127\tOK"], "x@far.example", "550"),
        (["To:far.example\tRELAY"], "x@sub.far.example", "250"),
        (["To:far.example\tRELAY", "To:bad@\tREJECT"], "bad@far.example", "550"),
        (["far.example\tRELAY"], "x@far.example", "250"),
        (["From:example.org\tOK"], "x@far.example", "550"),
        (["example.org\tRELAY"], "x@far.example", "550"),
    ],
)
async def test_relay_by_client_and_destination_never_by_sender(
    make_edge: MakeEdge, lines: list[str], recipient: str, code: str
) -> None:
    """Fails without rights to relay in the access rules, of a client or for a destination, never of a sender."""
    edge = await make_edge(access=rules(*lines))
    assert (await asked(edge, recipient))[:3] == code


async def test_a_public_listener_takes_no_right_from_a_table(make_edge: MakeEdge) -> None:
    edge = await make_edge(access=rules("Connect:127\tRELAY", may_relay=False))
    assert (await asked(edge, "x@far.example")).startswith("550 5.7.1")
    assert (await asked(edge, "bob@example.test")).startswith("250")


async def test_no_rule_opens_the_ways_around_a_destination(make_edge: MakeEdge) -> None:
    edge = await make_edge(access=rules("Connect:127\tRELAY", "To:mx.example.test\tRELAY"))
    assert (await asked(edge, "x%far.example@mx.example.test")).startswith("550")
    assert (await asked(edge, '"x@far.example"@[192.0.2.1]')).startswith("550")


@pytest.mark.parametrize("verb", ["DISCARD", "QUARANTINE:look", "TAG"])
async def test_discard_quarantine_and_tag_take_the_mail(make_edge: MakeEdge, verb: str) -> None:
    """What the client sees is always 250."""
    edge = await make_edge(access=rules(f"To:bob@\t{verb}"))
    client = await edge.client()
    await client.begin("bob@example.test")
    client.send("Subject: x\r\n\r\ntext\r\n.\r\n")
    assert (await client.reply()).startswith("250")
    messages = edge.messages()
    if verb == "DISCARD":
        assert messages == []
        return
    ((envelope, _),) = messages
    (recipient,) = envelope.recipients
    assert recipient.quarantine == ("access: bob@: look" if verb.startswith("Q") else "")


async def test_of_two_recipients_only_the_discarded_one_gets_nothing(make_edge: MakeEdge) -> None:
    edge = await make_edge(access=rules("To:bob@\tDISCARD"))
    client = await edge.client()
    await client.begin("bob@example.test", "alice@example.test")
    client.send("Subject: x\r\n\r\ntext\r\n.\r\n")
    assert (await client.reply()).startswith("250")
    ((envelope, _),) = edge.messages()
    assert [recipient.address for recipient in envelope.recipients] == ["alice@example.test"]


async def test_helo_rules_and_the_rule_in_the_event(make_edge: MakeEdge) -> None:
    edge = await make_edge(access=rules("Helo:client.example.org\tREJECT no robots"))
    assert (await asked(edge, "bob@example.test")).startswith("550 5.7.1 <bob@example.test>: no robots (access)")
    (event,) = [event for event in edge.events.all if event.kind == REFUSED]
    assert event.facts["check"] == "access"
    judged = [event.facts for event in edge.events.all if event.facts.get("rule")]
    assert [(facts["rule"], facts["origin"]) for facts in judged] == [("client.example.org", "access.inline[0]")]


async def test_who_has_logged_in_is_not_refused_by_address(make_edge: MakeEdge) -> None:
    edge = await make_edge(
        access=rules("Connect:127\tREJECT"), auth_enabled=True, auth_require_tls=False, auth_directory="people"
    )
    client = await edge.client()
    assert (await client.ask("AUTH PLAIN AGFsaWNlAHNlY3JldC1h")).startswith("235")
    assert (await client.ask("MAIL FROM:<alice@example.test>")).startswith("250")
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")


def from_tables(**facts: Any) -> AccessConfig:
    return AccessConfig((), (AccessTableConfig("list", **facts),), clients_may_relay=True)


async def with_tables(make_edge: MakeEdge, config: AccessConfig, tables: DictTables) -> Edge:
    return await make_edge(access_tables=tables, access=config)


@pytest.mark.requirement("S2-9")
async def test_a_table_changes_under_a_session(make_edge: MakeEdge) -> None:
    """Fails without own rules and a list of others side by side, and a new version of the list at once in force."""
    tables = DictTables(list="From:spam.example\tREJECT\n")
    own = (AccessEntry(Tag.FROM, "friend@spam.example", Action.ACCEPT),)
    edge = await with_tables(make_edge, AccessConfig(own, (AccessTableConfig("list", 5.0),)), tables)
    assert tables.wanted == {"list": 5.0}
    client = await edge.client()

    async def code(sender: str) -> str:
        await client.ask("RSET")
        await client.ask(f"MAIL FROM:<{sender}>")
        return (await client.ask("RCPT TO:<bob@example.test>"))[:3]

    assert [await code("a@spam.example"), await code("friend@spam.example")] == ["550", "250"]
    tables.change(list="From:friend@spam.example\tREJECT\n")
    assert [await code("a@spam.example"), await code("friend@spam.example")] == ["250", "250"]


async def test_a_right_that_a_table_no_longer_gives_ends_the_session(make_edge: MakeEdge) -> None:
    tables = DictTables(list="Connect:127\tRELAY\n")
    edge = await with_tables(make_edge, from_tables(), tables)
    client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    assert (await client.ask("RCPT TO:<x@far.example>")).startswith("250")
    tables.change(list="Connect:127\tRELAY\nFrom:x.example\tOK\n")
    assert (await client.ask("RCPT TO:<y@far.example>")).startswith("250")
    tables.change(list="Connect:10\tRELAY\n")
    assert (await client.ask("DATA")).startswith("421 4.7.0")
    assert await client.rest() == b""


@pytest.mark.parametrize(
    ("on_error", "recipient", "reply"),
    [
        (OnError.TEMPFAIL, "bob@example.test", "451 4.3.5"),
        (OnError.TEMPFAIL, "postmaster@example.test", "250"),
        (OnError.TEMPFAIL, "x@far.example", "451 4.3.5"),
        (OnError.IGNORE, "x@far.example", "550 5.7.1"),
        (OnError.IGNORE, "bob@example.test", "250"),
        (OnError.ACCEPT, "bob@example.test", "250"),
    ],
)
async def test_a_table_that_was_never_loaded(
    make_edge: MakeEdge, on_error: OnError, recipient: str, reply: str
) -> None:
    edge = await with_tables(make_edge, from_tables(on_error=on_error), DictTables())
    assert (await asked(edge, recipient)).startswith(reply)


async def test_without_rules_nothing_is_asked(edge: Edge) -> None:
    client: Client = await edge.client()
    await client.ask("MAIL FROM:<a@example.org>")
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")
    (session,) = edge.server.sessions
    assert session.transaction is not None
    assert session.transaction.access is None
    assert session.verdicts is None
    assert edge.server.access.rules == {}


@pytest.mark.parametrize(
    ("lines", "known", "reply"),
    [
        (["Connect:partner.example\tRELAY"], True, "250"),
        (["Connect:partner.example\tRELAY"], False, "550 5.7.1"),
        (["Connect:.mx.partner.example\tRELAY"], True, "550 5.7.1"),
        (["Connect:mx.partner.example\tREJECT", "Connect:127\tRELAY"], True, "550 5.7.1"),
    ],
)
async def test_a_host_name_counts_when_it_is_confirmed(
    make_edge: MakeEdge, lines: list[str], known: bool, reply: str
) -> None:
    edge = await make_edge(access=rules(*lines))
    edge.resolver.add_ptr("127.0.0.1", "mx.partner.example")
    if known:
        edge.resolver.add("mx.partner.example", "A", "127.0.0.1")
    assert (await asked(edge, "x@far.example")).startswith(reply)


async def test_a_name_that_dns_does_not_give_now_is_no_refusal_for_good(make_edge: MakeEdge) -> None:
    edge = await make_edge(access=rules("Connect:partner.example\tRELAY"))
    edge.resolver.add_ptr("127.0.0.1", "mx.partner.example").fail("mx.partner.example")
    assert (await asked(edge, "x@far.example")).startswith("450 4.4.3")
    assert (await asked(edge, "bob@example.test")).startswith("250")


async def test_names_are_not_looked_up_for_rules_without_names(make_edge: MakeEdge) -> None:
    edge = await make_edge(access=rules("Connect:10\tREJECT", "From:spam.example\tREJECT"))
    assert (await asked(edge, "bob@example.test")).startswith("250")
    assert edge.resolver.asked == []


@pytest.mark.requirement("S2-19")
async def test_a_recipient_can_want_what_a_shared_list_refuses(make_edge: MakeEdge) -> None:
    """Fails without exceptions of a recipient, and of the administrator, that win over a list of others."""
    tables = DictTables(list="Connect:127\tREJECT\nFrom:shop.example\tREJECT\n")
    own = (
        AccessEntry(Tag.TO, "bob@example.test", Action.ACCEPT),
        AccessEntry(Tag.CONNECT, "127.0.0.1", Action.ACCEPT),
    )
    edge = await with_tables(make_edge, AccessConfig(own[:1], (AccessTableConfig("list"),)), tables)
    assert (await asked(edge, "bob@example.test", "a@shop.example")).startswith("250")
    assert (await asked(edge, "alice@example.test", "a@shop.example")).startswith("550")
    edge.configure(access=AccessConfig(own, (AccessTableConfig("list"),)))
    assert (await asked(edge, "alice@example.test", "a@other.example")).startswith("250")
    assert (await asked(edge, "alice@example.test", "a@shop.example")).startswith("550")
