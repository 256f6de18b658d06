"""Recipients, routes, retries, notifications and what follows an attempt: decision tables."""

from __future__ import annotations

import email
import email.policy

import msgspec
import pytest

from gatepost.core.address import Address, parse_address
from gatepost.core.aftermath import Aftermath, Attempt, Scene, aftermath, put_aside
from gatepost.core.compile import Surroundings, compile_manifests
from gatepost.core.configuration import RetryPlan
from gatepost.core.dsn import Fate, failure_notification
from gatepost.core.envelope import VERSION, Deferral, Destination, Envelope, Recipient, Trust
from gatepost.core.hosts import HostError, NextHop, parse_host
from gatepost.core.manifest.documents import read_objects
from gatepost.core.networks import NetworkError, NetworkSet, parse_network
from gatepost.core.ports.directory import Entry, EntryKind
from gatepost.core.ports.log import Record
from gatepost.core.ports.resolver import MxHost
from gatepost.core.ports.transport import RemoteReply
from gatepost.core.recipients import Found, Kind, find_recipient
from gatepost.core.records import Item, read_item, work_entry
from gatepost.core.reply import Reply
from gatepost.core.retry import GiveUp, TryAgain, next_attempt
from gatepost.core.routing import GoesNowhere, GoesOnAs, GoesTo, GoesToGroup, route
from gatepost.core.sites import site_of_hosts, site_of_mx
from gatepost.core.tables import Tables
from gatepost.core.topics import Topics

MANIFESTS = """
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: a}
spec:
  domain: a.example
  default: true
  subdomains: true
  aliasDomains: [alias.example]
  recipients:
    source: {type: Directory, directoryRef: {name: users}}
    subaddressing: {separators: ["+"]}
    roleAddresses: {postmaster: ann@a.example}
    aliases: {sales: [ann@a.example, far@b.example], ann: [ann@a.example, far@b.example]}
---
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: relayed}
spec:
  domain: relayed.example
  recipients: {source: {type: Any}}
  delivery: {type: Relay, hosts: ["[10.0.0.1]:26"]}
"""


class Users:
    """A directory of a few entries."""

    def __init__(self, *entries: Entry) -> None:
        self._entries = {address: entry for entry in entries for address in entry.addresses}

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    async def lookup(self, address: Address) -> Entry | None:
        return self._entries.get(address.key)

    async def expand(self, group: Entry) -> list[Entry]:
        return []

    async def authenticate(self, login: str, password: str):  # type: ignore[no-untyped-def]
        raise NotImplementedError


def entry(name: str, **more: object) -> Entry:
    address = f"{name}@a.example"
    return Entry(name, EntryKind.ACCOUNT, address, (address,), **more)  # type: ignore[arg-type]


def tables(manifests: str = MANIFESTS) -> Tables:
    objects = read_objects({"t": manifests})
    around = Surroundings(directories=("users",), stores=("local",))
    return Tables(compile_manifests(objects.domains, objects.policies, around).configuration)


USERS = Users(
    entry("ann"),
    entry("off", enabled=False),
    entry("ann+exact"),
    entry("remote", mail_host="other.example"),
    entry("here", mail_host="this.example"),
    entry("moved", routing_address="new@b.example"),
    entry("both", mail_host="other.example", routing_address="new@other.example"),
    entry("stored", store="dovecot"),
)


async def found(address: str, past_lists: bool = False) -> Found:
    parsed = parse_address(address) if "@" in address else Address(address, "")
    return await find_recipient(tables(), {"users": USERS}, parsed, past_lists=past_lists)


@pytest.mark.parametrize(
    ("address", "kind", "matched"),
    [
        ("ann@a.example", Kind.LIST, "ann@a.example"),
        ("Off@A.example", Kind.DISABLED, "Off@a.example"),
        ("here+x@a.example", Kind.ENTRY, "here@a.example"),
        ("ann+exact@a.example", Kind.ENTRY, "ann+exact@a.example"),
        ("here@alias.example", Kind.ENTRY, "here@a.example"),
        ("here@sub.a.example", Kind.UNKNOWN, "here@sub.a.example"),
        ("nobody@a.example", Kind.UNKNOWN, "nobody@a.example"),
        ("postmaster", Kind.LIST, "postmaster@a.example"),
        ("sales@a.example", Kind.LIST, "sales@a.example"),
        ("x@elsewhere.example", Kind.NOT_SERVED, "x@elsewhere.example"),
        ("x@[127.0.0.1]", Kind.NOT_SERVED, "x@[127.0.0.1]"),
        ("any@relayed.example", Kind.LISTED, "any@relayed.example"),
    ],
)
async def test_recipients(address: str, kind: Kind, matched: str) -> None:
    result = await found(address)
    assert (result.kind, str(result.address)) == (kind, matched)


@pytest.mark.requirement("S4-78")
@pytest.mark.parametrize("name", ["postmaster", "Abuse", "hostmaster"])
async def test_every_domain_has_its_role_addresses(name: str) -> None:
    """Fails without the default domain's role addresses for a domain that has none, in the directory neither."""
    other = """---
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: other}
spec: {domain: other.example, recipients: {source: {type: Static, addresses: [x]}}, delivery: {type: Discard}}
"""
    result = await find_recipient(tables(MANIFESTS + other), {}, parse_address(f"{name}@other.example"))
    assert (result.kind, result.targets, result.role) == (Kind.LIST, ("ann@a.example",), True)
    unknown = await find_recipient(tables(MANIFESTS + other), {}, parse_address("webmaster@other.example"))
    assert unknown.kind is Kind.UNKNOWN


async def test_behind_an_alias_that_names_itself_is_the_account() -> None:
    assert (await found("ann@a.example", past_lists=True)).kind is Kind.ENTRY


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("stored@a.example", GoesTo(Address("stored", "a.example"), Destination("dovecot", "stored@a.example"))),
        ("here@a.example", GoesTo(Address("here", "a.example"), Destination("local", "here@a.example"))),
        ("remote@a.example", GoesTo(Address("remote", "a.example"), Destination(hosts=("[other.example]",)))),
        ("both@a.example", GoesTo(Address("new", "other.example"), Destination(hosts=("[other.example]",)))),
        ("moved@a.example", GoesOnAs((Address("new", "b.example"),))),
        ("off@a.example", GoesNowhere("5.2.1", "the mailbox is disabled")),
        ("nobody@a.example", GoesNowhere("5.1.1", "no such user here")),
        ("x@y.example", GoesTo(Address("x", "y.example"), Destination(domain="y.example"))),
        ("x@[192.0.2.1]", GoesTo(Address("x", "[192.0.2.1]"), Destination(hosts=("[192.0.2.1]",)))),
        (
            "x@relayed.example",
            GoesTo(
                Address("x", "relayed.example"), Destination(domain="relayed.example", hosts=("[10.0.0.1]:26",))
            ),
        ),
    ],
)
async def test_routes(address: str, expected: object) -> None:
    assert route(await found(address), {"this.example": "local"}) == expected


def test_groups_are_expanded() -> None:
    config = tables().domain("a.example")
    group = Entry("g", EntryKind.GROUP, "g@a.example", ("g@a.example",))
    result = route(Found(Kind.ENTRY, Address("g", "a.example"), config, group), {})
    assert isinstance(result, GoesToGroup)


ENVELOPE = Envelope(
    v=VERSION,
    id="01HF7YAT3VMNYNQV3RQQ4BXDW8",
    reverse_path="sender@a.example",
    recipients=(Recipient("x@b.example", "01HF7YAT3V00000000000000X1"), Recipient("y@b.example")),
    received_ms=1_000_000,
    size=10,
    trust=Trust.AUTHENTICATED,
)


@pytest.mark.parametrize(
    ("attempts", "age_s", "expected"),
    [
        (0, 0, TryAgain("1m")),
        (1, 60, TryAgain("5m")),
        (6, 30_000, TryAgain("4h")),
        (50, 400_000, TryAgain("4h")),
        (50, 432_000 - 14_399, GiveUp(432_000 - 14_399)),
    ],
)
def test_retries(attempts: int, age_s: int, expected: object) -> None:
    envelope = msgspec.structs.replace(ENVELOPE, deferral=Deferral(attempts=attempts))
    assert next_attempt(RetryPlan(), envelope, 1_000_000 + age_s * 1000) == expected


def test_a_bounce_is_given_up_earlier() -> None:
    bounce = msgspec.structs.replace(ENVELOPE, reverse_path="")
    assert isinstance(next_attempt(RetryPlan(), bounce, 1_000_000 + 86_400_000), GiveUp)


SCENE = Scene(Topics("p."), "mx.a.example", "p.relay", 2_000_000)
HEADER = "From: s@a.example\r\nSubject: Grüße\r\n\r\nbody".encode()


def run(replies: list[RemoteReply], envelope: Envelope = ENVELOPE) -> Aftermath:
    item = Item(envelope, HEADER, b"00-tp")
    attempts = [Attempt(r, reply) for r, reply in zip(envelope.recipients, replies, strict=True)]
    return aftermath(item, attempts, RetryPlan(), HEADER, SCENE, b"00-tp", b"key")


def test_sent_leaves_nothing_to_do() -> None:
    after = run([RemoteReply(250, "2.0.0", "ok"), RemoteReply(250, "", "ok")])
    assert after.entries == ()


def test_deferred_recipients_go_into_a_tier_together() -> None:
    after = run([RemoteReply(450, "4.2.0", "later", "mx.b.example"), RemoteReply(250, "", "ok")])
    (retry,) = after.entries
    assert (retry.topic, retry.key, retry.value) == ("p.retry.1m", b"key", HEADER)
    item = read_item(Record(retry.topic, 0, 0, 0, retry.key, retry.value or b"", retry.headers))
    assert [r.address for r in item.envelope.recipients] == ["x@b.example"]
    assert item.envelope.deferral is not None
    assert item.envelope.deferral.return_topic == "p.relay"
    assert item.envelope.deferral.attempts == 1
    assert item.envelope.deferral.last_reply == "450 4.2.0 later"


@pytest.mark.requirement("S4-68")
def test_a_failure_becomes_a_dsn_to_a_trusted_sender() -> None:
    """A permanent failure is reported with the null sender. Fails without dsn.py or its way into `accepted`."""
    after = run([RemoteReply(550, "5.1.1", "unknown <x>", "mx.b.example"), RemoteReply(250, "", "ok")])
    (entry,) = after.entries
    assert entry.topic == "p.accepted"
    assert entry.value is not None
    message = email.message_from_bytes(entry.value, policy=email.policy.default)
    assert message.get_content_type() == "multipart/report"
    status = [part for part in message.walk() if part.get_content_type() == "message/delivery-status"]
    assert len(status) == 1
    text = status[0].as_string()
    assert "Final-Recipient: rfc822; x@b.example" in text
    assert "Action: failed" in text
    assert "Status: 5.1.1" in text
    assert "Diagnostic-Code: smtp; 550 5.1.1 unknown <x>" in text
    assert "Remote-MTA: dns; mx.b.example" in text
    assert message["Auto-Submitted"] == "auto-replied"
    assert b"\n" not in entry.value.replace(b"\r\n", b"")


@pytest.mark.requirement("S4-33")
def test_a_dsn_to_an_unverified_sender_is_quarantined() -> None:
    """Fails without the trust in a return path: a bounce to a forged one would bomb its owner (backscatter)."""
    envelope = msgspec.structs.replace(ENVELOPE, trust=Trust.UNVERIFIED)
    after = run([RemoteReply(550, "5.1.1", "x"), RemoteReply(550, "5.1.1", "x")], envelope)
    assert [entry.topic for entry in after.entries] == ["p.quarantine"]


def test_the_null_sender_gets_no_dsn() -> None:
    failure = Fate(ENVELOPE.recipients[0], Reply(550, "5.0.0", "x"))
    bounce = msgspec.structs.replace(ENVELOPE, reverse_path="")
    assert failure_notification(bounce, [failure], b"", "h", 0) is None


def test_an_expired_copy_is_a_failure_with_4_4_7() -> None:
    old = msgspec.structs.replace(ENVELOPE, received_ms=2_000_000 - 500_000_000)
    after = run([RemoteReply(450, "4.2.0", "later"), RemoteReply(450, "4.2.0", "later")], old)
    assert [told.reply.enhanced for told in after.failed] == ["4.4.7", "4.4.7"]
    assert after.deferred == ()


def test_a_repeated_step_writes_the_same_ids() -> None:
    replies = [RemoteReply(550, "5.1.1", "x"), RemoteReply(450, "4.0.0", "y")]
    first, second = run(replies), run(replies)
    assert first.entries == second.entries


def test_an_smtputf8_dsn_is_global() -> None:
    failure = Fate(Recipient("山田@b.example", "01HF7YAT3V00000000000000X1"), Reply(550, "5.1.1", "x"))
    notification = failure_notification(ENVELOPE, [failure], HEADER, "mx.a.example", 0)
    assert notification is not None
    assert notification.envelope.smtputf8
    assert b"message/global-delivery-status" in notification.message
    assert "Final-Recipient: utf-8; 山田@b.example".encode() in notification.message


def test_put_aside_does_not_count_as_an_attempt() -> None:
    entry = put_aside(Item(ENVELOPE, b"m", None), SCENE, "1m", "busy", None, None)
    item = read_item(Record(entry.topic, 0, 0, 0, None, b"m", entry.headers))
    assert item.envelope.deferral is not None
    assert item.envelope.deferral.attempts == 0


def test_records_round_trip() -> None:
    entry = work_entry("t", ENVELOPE, b"body", b"tp", b"k")
    item = read_item(Record("t", 0, 0, 0, b"k", b"body", entry.headers))
    assert item == Item(ENVELOPE, b"body", b"tp")


@pytest.mark.parametrize(
    ("text", "hop"),
    [
        ("mx.example", NextHop("mx.example", True)),
        ("mx.example:26", NextHop("mx.example", True, 26)),
        ("[mx.Example]:26", NextHop("mx.example", False, 26)),
        ("[192.0.2.1]", NextHop("192.0.2.1", False)),
        ("[2001:DB8::1]:25", NextHop("2001:db8::1", False, 25)),
        ("[IPv6:2001:db8::1]", NextHop("2001:db8::1", False)),
    ],
)
def test_hosts(text: str, hop: NextHop) -> None:
    assert parse_host(text) == hop


@pytest.mark.parametrize("text", ["", "192.0.2.1", "[mx", "mx:0", "mx:99999", "mx:a", "mx:\u00b2", "a b", "[]"])
def test_bad_hosts(text: str) -> None:
    with pytest.raises(HostError):
        parse_host(text)


@pytest.mark.parametrize(
    ("networks", "address", "inside"),
    [
        (("192.0.2.0/24",), "192.0.2.255", True),
        (("192.0.2.0/24",), "192.0.3.0", False),
        (("192.0.2.5",), "192.0.2.5", True),
        (("192.0.2.5-192.0.2.9", "192.0.2.8-192.0.2.20"), "192.0.2.15", True),
        (("192.0.2.0/24",), "::ffff:192.0.2.1", True),
        (("2001:db8::/32",), "2001:db8::1", True),
        (("2001:db8::/32",), "192.0.2.1", False),
        ((), "192.0.2.1", False),
    ],
)
def test_networks(networks: tuple[str, ...], address: str, inside: bool) -> None:
    assert (address in NetworkSet(networks)) is inside


@pytest.mark.parametrize("text", ["x", "192.0.2.1/24", "192.0.2.9-192.0.2.1", "192.0.2.1-2001:db8::1", ""])
def test_bad_networks(text: str) -> None:
    with pytest.raises(NetworkError):
        parse_network(text)


def test_sites_join_domains_with_one_mx_set() -> None:
    one = site_of_mx("a.example", [MxHost(10, "m2.x"), MxHost(5, "m1.x")])
    assert one == site_of_mx("b.example", [MxHost(1, "m1.x"), MxHost(1, "m2.x")])
    assert site_of_mx("a.example", []) != site_of_mx("b.example", [])
    assert site_of_hosts(("[A]",)) == site_of_hosts(("[a]",))
    assert len(site_of_hosts(tuple(f"[h{n}.example]" for n in range(99)))) <= 80
