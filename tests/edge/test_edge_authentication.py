"""SPF, DKIM, DMARC and ARC while mail comes in: what is judged, what is noted, what leaves without it."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gatepost.core.access.source import read_line
from gatepost.core.authentication.arc import ArcResult, ArcSealer, ArcStatus
from gatepost.core.authentication.dkim import DkimSigner, hash_body
from gatepost.core.checks.access import AccessConfig
from gatepost.core.checks.authentication import AuthenticationPolicy, DkimActions, DmarcActions, SpfActions
from gatepost.core.checks.connection import ConnectionRules
from gatepost.core.configuration import ClientRule
from gatepost.core.envelope import Trust
from gatepost.core.headers import read_header
from gatepost.core.leaving import leaving_bytes
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.manifest.settings import Role
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

NOW = 1_790_000_000  # the edge's clock
HERE = "mx.example.test"
ON = AuthenticationPolicy()
BODY = b"Hello\r\n"
KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
RECORD = (
    "v=DKIM1; k=ed25519; p="
    + base64.b64encode(KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
)


def signed(header: bytes, body: bytes = BODY, domain: str = "example.org") -> bytes:
    signer = DkimSigner(domain, "s", PEM)
    return signer.sign(read_header(header), hash_body(body, {signer.wanted}), NOW) + header + b"\r\n" + body


def publish(edge: Edge, spf: str = "v=spf1 ip4:127.0.0.1 -all", dmarc: str = "v=DMARC1; p=reject") -> None:
    """example.org says who sends for it, what its key is and what it wants."""
    edge.resolver.add("example.org", "TXT", spf)
    edge.resolver.add("s._domainkey.example.org", "TXT", RECORD)
    edge.resolver.add("_dmarc.example.org", "TXT", dmarc)


async def send(client: Client, message: bytes, *recipients: str, sender: str = "alice@example.org") -> str:
    await client.begin(*recipients, sender=sender)
    client.send(message + b".\r\n")
    return await client.reply()


def hang(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let no question end; the event says that one was asked."""
    asked = asyncio.Event()

    async def query(name: str, kind: str) -> Any:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(edge.resolver, "query", query)
    return asked


def counted(method: str, result: str) -> float:
    return metrics.AUTHENTICATION.values.get(("mx", method, result), 0)


async def test_what_is_found_stands_above_the_message_and_in_the_records(make_edge: MakeEdge) -> None:
    edge = await make_edge(authentication=ON)
    publish(edge)
    before = counted("dkim", "pass")
    message = signed(b"From: <alice@example.org>\r\nSubject: s\r\n")
    assert (await send(await edge.client(), message)).startswith("250")
    ((envelope, value),) = edge.messages()
    assert value == message
    assert envelope.prepend.startswith(
        f"Authentication-Results: {HERE};\r\n\tspf=pass smtp.mailfrom=alice@example.org;"
    )
    assert "\tdmarc=pass policy.dmarc=none header.from=example.org\r\nReceived: " in envelope.prepend
    assert (envelope.trust, envelope.tags, envelope.strip) == (Trust.SPF_PASS, (), ())
    (event,) = [one for one in edge.events.all if one.kind == "accepted"]
    found = {name: event.facts[name] for name in ("spf", "dkim", "dkim_domain", "dmarc", "dmarc_policy", "arc")}
    assert found == {
        "spf": "pass",
        "dkim": "pass",
        "dkim_domain": "example.org",
        "dmarc": "pass",
        "dmarc_policy": "reject",
        "arc": "none",
    }
    assert counted("dkim", "pass") == before + 1


@pytest.mark.parametrize(
    ("sender", "spf", "domain", "trust"),
    [
        ("alice@example.org", "v=spf1 ip4:127.0.0.1 -all", "example.org", Trust.SPF_PASS),
        ("alice@example.org", "v=spf1 ?all", "example.org", Trust.DKIM_ALIGNED),
        ("alice@bounce.example.org", "v=spf1 ?all", "example.org", Trust.DKIM_ALIGNED),
        ("victim@example.net", "v=spf1 ?all", "example.org", Trust.UNVERIFIED),
        ("alice@example.org", "v=spf1 ?all", "example.net", Trust.UNVERIFIED),
    ],
)
async def test_the_return_path_is_trusted_only_where_its_own_domain_vouches(
    make_edge: MakeEdge, sender: str, spf: str, domain: str, trust: Trust
) -> None:
    edge = await make_edge(authentication=ON)
    publish(edge, spf)
    edge.resolver.add("s._domainkey.example.net", "TXT", RECORD)
    message = signed(b"From: <alice@example.org>\r\n", domain=domain)
    assert (await send(await edge.client(), message, sender=sender)).startswith("250")
    assert edge.messages()[0][0].trust is trust


async def test_results_in_our_name_are_left_out_when_the_message_leaves(make_edge: MakeEdge) -> None:
    edge = await make_edge(authentication=ON)
    forged = b"Authentication-Results: MX.example.test (x); dmarc=pass\r\n"
    unreadable = b"authentication-results : ;\r\n dkim=pass\r\n"
    other = b"Authentication-Results: mx.example.net; spf=pass\r\n"
    rest = b"From: <a@example.org>\r\n"
    message = forged + other + unreadable + forged + rest + b"\r\n" + BODY + forged
    assert (await send(await edge.client(), message)).startswith("250")
    ((envelope, value),) = edge.messages()
    assert value == message
    assert leaving_bytes(value, envelope.strip) == other + rest + b"\r\n" + BODY + forged
    assert len(envelope.strip) == 2


async def test_very_many_results_in_our_name_are_refused(make_edge: MakeEdge) -> None:
    edge = await make_edge(authentication=ON)
    message = b"Authentication-Results: mx.example.test; none\r\nX: y\r\n" * 101 + b"\r\n"
    reply = await send(await edge.client(), message)
    assert reply.startswith("554 5.6.0 too many Authentication-Results fields")
    assert edge.messages() == []


@pytest.mark.parametrize("step", [1, 7, 60, 5000])
async def test_a_signature_is_good_however_the_message_is_cut(make_edge: MakeEdge, step: int) -> None:
    edge = await make_edge(authentication=ON)
    publish(edge)
    message = signed(b"From: <alice@example.org>\r\nSubject: a\r\n b\r\n", b"Hello  you \r\n\r\n" * 20)
    client = await edge.client()
    await client.ask("MAIL FROM:<alice@example.org>")
    await client.ask("RCPT TO:<bob@example.test>")
    for start in range(0, len(message), step):
        chunk = message[start : start + step]
        last = " LAST" if start + step >= len(message) else ""
        client.send(f"BDAT {len(chunk)}{last}\r\n".encode() + chunk)
        assert (await client.reply()).startswith("250")
    assert "dkim=pass" in edge.messages()[0][0].prepend


async def test_a_large_body_is_hashed_in_passing_and_a_change_is_seen(make_edge: MakeEdge) -> None:
    edge = await make_edge(authentication=ON)
    publish(edge)
    body = b"line of a large message\r\n..\r\n" * 60_000
    message = signed(b"From: <alice@example.org>\r\n", body)
    client = await edge.client()
    assert (await send(client, message.replace(b"\r\n.", b"\r\n.."))).startswith("250")
    assert (await send(client, message.replace(b"\r\n.", b"\r\n..").replace(b"large", b"LARGE", 1))).startswith(
        "250"
    )
    good, changed = edge.messages()
    assert good[0].content is not None
    assert "dkim=pass" in good[0].prepend
    assert 'dkim=fail reason="the body was changed"' in changed[0].prepend


FAILING = b"From: <boss@example.org>\r\n\r\nPay\r\n"


@pytest.mark.parametrize(
    ("asked", "kept", "tags"),
    [
        ("reject", "dmarc: fail for example.org, which asks for reject", ()),
        ("quarantine", "", ("dmarc: fail for example.org, which asks for quarantine",)),
        ("none", "", ()),
    ],
)
async def test_by_default_what_fails_is_kept_for_a_person_or_tagged(
    make_edge: MakeEdge, asked: str, kept: str, tags: tuple[str, ...]
) -> None:
    edge = await make_edge(authentication=ON)
    publish(edge, dmarc=f"v=DMARC1; p={asked}")
    people = ("bob@example.test", "postmaster@example.test")
    assert (await send(await edge.client(), FAILING, *people, sender="x@example.net")).startswith("250")
    ((envelope, _),) = edge.messages()
    assert [recipient.quarantine for recipient in envelope.recipients] == [kept, ""]
    assert envelope.tags == tags
    judged = [event.facts for event in edge.events.all if event.kind == "judged"]
    assert [(facts["check"], facts["dmarc"]) for facts in judged] == [("dmarc", "fail")] * (asked != "none")


async def test_discarded_for_all_but_role_addresses(make_edge: MakeEdge) -> None:
    edge = await make_edge(authentication=AuthenticationPolicy(dmarc=DmarcActions(reject=Action.DISCARD)))
    publish(edge)
    client = await edge.client()
    assert (await send(client, FAILING, "bob@example.test", sender="x@example.net")).startswith("250")
    assert edge.messages() == []
    people = ("bob@example.test", "postmaster@example.test")
    assert (await send(client, FAILING, *people, sender="x@example.net")).startswith("250")
    ((envelope, _),) = edge.messages()
    assert len(envelope.recipients) == 1
    assert edge.events.kinds().count("discarded") == 2


@pytest.mark.parametrize("result", ["fail", "softfail"])
async def test_spf_tags_by_default(make_edge: MakeEdge, result: str) -> None:
    edge = await make_edge(authentication=ON)
    publish(edge, "v=spf1 -all" if result == "fail" else "v=spf1 ~all", "v=DMARC1; p=none")
    assert (await send(await edge.client(), FAILING)).startswith("250")
    ((envelope, _),) = edge.messages()
    assert envelope.tags == (f"spf: {result} for example.org",)
    assert envelope.prepend.startswith(f"X-Gatepost-Tag: spf; {result} for example.org\r\nAuthentication-Results: ")


async def test_spf_that_acts_at_rcpt_acts_once(make_edge: MakeEdge) -> None:
    edge = await make_edge(authentication=AuthenticationPolicy(spf=SpfActions(soft_fail=Action.DEFER)))
    publish(edge, "v=spf1 -all", "v=DMARC1; p=none")
    assert (await send(await edge.client(), FAILING)).startswith("250")
    assert edge.messages()[0][0].tags == ("spf: fail for example.org",)
    assert edge.events.kinds().count("judged") == 1


async def test_a_dns_that_hangs_delays_mail_by_no_more_than_the_deadline(
    make_edge: MakeEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = await make_edge(authentication=AuthenticationPolicy(deadline=0.1))
    hang(edge, monkeypatch)
    message = signed(b"From: <alice@example.org>\r\n")
    assert (await send(await edge.client(), message)).startswith("250")
    ((envelope, _),) = edge.messages()
    results = envelope.prepend.partition("Received:")[0]
    assert [method for method in ("spf", "dkim", "dmarc") if f"{method}=temperror" in results] == [
        "spf",
        "dkim",
        "dmarc",
    ]
    assert (envelope.trust, envelope.tags) == (Trust.UNVERIFIED, ())


@pytest.mark.parametrize(
    ("policy", "reply"),
    [
        (AuthenticationPolicy(dkim=DkimActions(temp_error=OnError.TEMPFAIL), deadline=0.1), "451 4.7.5 "),
        (AuthenticationPolicy(dmarc=DmarcActions(temp_error=OnError.TEMPFAIL), deadline=0.1), "451 4.4.3 "),
    ],
)
async def test_mail_waits_for_the_dns_where_the_policy_says_so(
    make_edge: MakeEdge, monkeypatch: pytest.MonkeyPatch, policy: AuthenticationPolicy, reply: str
) -> None:
    edge = await make_edge(authentication=policy)
    hang(edge, monkeypatch)
    assert (await send(await edge.client(), signed(b"From: <alice@example.org>\r\n"))).startswith(reply)
    assert edge.messages() == []


async def test_a_client_that_goes_away_ends_the_waiting(
    make_edge: MakeEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = await make_edge(authentication=AuthenticationPolicy(deadline=30.0))
    asked = hang(edge, monkeypatch)
    client = await edge.client()
    await client.begin()
    await asked.wait()
    client.send(FAILING + b".\r\n")
    (session,) = edge.server.sessions
    await edge.until(lambda: session.task is not None)
    client.reset()
    await edge.until(lambda: not edge.server.sessions)
    assert edge.messages() == []
    left = [task for task in asyncio.all_tasks() if "Authentication" in repr(task.get_coro())]
    assert all(task.cancelling() or task.done() for task in left)


async def test_rset_ends_what_was_begun(make_edge: MakeEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = await make_edge(authentication=ON)
    asked = hang(edge, monkeypatch)
    client = await edge.client()
    before = asyncio.all_tasks()
    await client.ask("MAIL FROM:<alice@example.org>")
    await asked.wait()
    begun = asyncio.all_tasks() - before
    assert begun
    await client.ask("RSET")
    await edge.until(lambda: all(task.done() for task in begun))


async def test_without_a_policy_nothing_is_asked_and_no_task_begins(make_edge: MakeEdge) -> None:
    edge = await make_edge()
    publish(edge, "v=spf1 -all")
    assert (await send(await edge.client(), FAILING)).startswith("250")
    ((envelope, _),) = edge.messages()
    assert edge.resolver.asked == []
    assert envelope.prepend.startswith("Received:")


async def test_a_network_that_may_relay_is_not_judged(make_edge: MakeEdge) -> None:
    edge = await make_edge(authentication=ON, relay_clients=(ClientRule(("127.0.0.0/8",), ("Local",)),))
    publish(edge, "v=spf1 -all")
    ours = b"Authentication-Results: mx.example.test; dmarc=pass\r\n"
    assert (await send(await edge.client(), ours + FAILING)).startswith("250")
    ((envelope, _),) = edge.messages()
    assert (edge.resolver.asked, envelope.strip) == ([], ())
    assert envelope.prepend.startswith("Received:")


async def test_who_has_logged_in_is_not_judged_and_writes_nothing_in_our_name(make_edge: MakeEdge) -> None:
    edge = await make_edge(
        role=Role.SUBMISSION, authentication=ON, auth_enabled=True, auth_require_tls=False, auth_directory="people"
    )
    client = await edge.client()
    login = base64.b64encode(b"\0alice@example.test\0secret-a").decode()
    assert (await client.ask(f"AUTH PLAIN {login}")).startswith("235")
    ours = b"Authentication-Results: mx.example.test; dmarc=pass\r\n"
    message = ours + b"From: <alice@example.test>\r\n\r\nx\r\n"
    assert (await send(client, message, sender="alice@example.test")).startswith("250")
    ((envelope, value),) = edge.messages()
    assert (edge.resolver.asked, envelope.trust) == ([], Trust.AUTHENTICATED)
    assert leaving_bytes(value, envelope.strip) == message.removeprefix(ours)


async def test_of_an_allowed_client_the_results_are_only_noted(make_edge: MakeEdge) -> None:
    edge = await make_edge(
        authentication=AuthenticationPolicy(
            spf=SpfActions(fail=Action.REJECT), dmarc=DmarcActions(reject=Action.REJECT)
        ),
        connection=ConnectionRules(allow=("127.0.0.1",)),
    )
    publish(edge, "v=spf1 -all")
    assert (await send(await edge.client(), FAILING)).startswith("250")
    ((envelope, _),) = edge.messages()
    assert "spf=fail" in envelope.prepend
    assert "dmarc=fail" in envelope.prepend
    assert (envelope.tags, envelope.recipients[0].quarantine) == ((), "")


def sealed(header: bytes, saw: str) -> bytes:
    """A message that lists.example took, changed, and sealed together with what it had found."""
    sealer = ArcSealer("lists.example", "s", PEM)
    fields = read_header(header)
    none = ArcResult(ArcStatus.NONE)
    added = sealer.seal(fields, hash_body(BODY, {sealer.wanted}), none, "lists.example", [saw], NOW)
    assert added is not None
    return added + header + b"\r\n" + BODY


@pytest.mark.parametrize(
    ("saw", "trusted", "quarantined"),
    [
        ("dmarc=pass header.from=example.org", ("lists.example",), False),
        ("dmarc=pass header.from=example.org", (), True),
        ("dmarc=pass header.from=example.org", ("other.example",), True),
        ("dmarc=fail header.from=example.org", ("lists.example",), True),
        ("dmarc=pass header.from=attacker.example", ("lists.example",), True),
    ],
)
async def test_a_trusted_sealer_vouches_for_what_it_saw(
    make_edge: MakeEdge, saw: str, trusted: tuple[str, ...], quarantined: bool
) -> None:
    edge = await make_edge(authentication=AuthenticationPolicy(trusted_sealers=trusted))
    publish(edge, "v=spf1 -all")
    edge.resolver.add("s._domainkey.lists.example", "TXT", RECORD)
    message = sealed(b"From: <alice@example.org>\r\nSubject: [list] s\r\n", saw)
    assert (await send(await edge.client(), message, sender="list@lists.example")).startswith("250")
    ((envelope, _),) = edge.messages()
    assert "arc=pass" in envelope.prepend
    assert bool(envelope.recipients[0].quarantine) is quarantined


async def test_the_null_sender_is_judged_by_its_greeting_and_not_trusted(make_edge: MakeEdge) -> None:
    edge = await make_edge(authentication=ON)
    edge.resolver.add("client.example.org", "TXT", "v=spf1 ip4:127.0.0.1 -all")
    assert (await send(await edge.client(), b"From: <a@b.example>\r\n\r\n", sender="")).startswith("250")
    ((envelope, _),) = edge.messages()
    assert "spf=pass smtp.mailfrom=postmaster@client.example.org" in envelope.prepend
    assert envelope.trust is Trust.UNVERIFIED


@pytest.mark.parametrize("message", [b"", b"\r\n", b"\r\nonly a body\r\n", b"no header at all\r\n", b"From:\r\n"])
async def test_messages_without_much_of_a_header(make_edge: MakeEdge, message: bytes) -> None:
    edge = await make_edge(authentication=ON)
    assert (await send(await edge.client(), message)).startswith("250")
    ((envelope, value),) = edge.messages()
    assert value == message
    assert "dmarc=permerror" in envelope.prepend


def rules(*lines: str) -> AccessConfig:
    return AccessConfig(tuple(read_line(line) for line in lines), clients_may_relay=True)


ALL_REJECT = AuthenticationPolicy(spf=SpfActions(fail=Action.REJECT), dmarc=DmarcActions(reject=Action.REJECT))


@pytest.mark.parametrize(
    ("line", "recipient", "reply", "trust"),
    [
        ("Connect:127\tOK", "bob@example.test", "250", Trust.UNVERIFIED),
        ("Connect:127\tRELAY", "bob@example.test", "250", Trust.UNVERIFIED),
        ("Connect:127\tRELAY", "x@far.example", "250", Trust.AUTHENTICATED),
        ("To:bob@\tOK", "bob@example.test", "250", Trust.UNVERIFIED),
        ("To:alice@\tOK", "bob@example.test", "550 5.7.23", None),
        # Anybody may send there through us, and is not one of ours by that.
        ("To:far.example\tRELAY", "x@far.example", "550 5.7.23", None),
    ],
)
async def test_who_is_exempt_by_access_rules(
    make_edge: MakeEdge, line: str, recipient: str, reply: str, trust: Trust | None
) -> None:
    edge = await make_edge(authentication=ALL_REJECT, access=rules(line))
    publish(edge, "v=spf1 -all")
    client = await edge.client()
    await client.ask("MAIL FROM:<alice@example.org>")
    said = await client.ask(f"RCPT TO:<{recipient}>")
    if trust is not None:
        assert (await client.ask("DATA")).startswith("354")
        client.send(FAILING + b".\r\n")
        said = await client.reply()
    assert said.startswith(reply)
    assert [envelope.trust for envelope, _ in edge.messages()] == ([] if trust is None else [trust])


async def test_a_recipients_right_to_relay_is_no_login(make_edge: MakeEdge) -> None:
    edge = await make_edge(authentication=ON, access=rules("To:far.example\tRELAY"))
    publish(edge, "v=spf1 ?all")
    assert (await send(await edge.client(), FAILING, "x@far.example")).startswith("250")
    ((envelope, _),) = edge.messages()
    assert envelope.trust is Trust.UNVERIFIED
    assert envelope.recipients[0].quarantine.startswith("dmarc: fail")
