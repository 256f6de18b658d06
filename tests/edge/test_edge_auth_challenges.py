"""AUTH SCRAM-SHA-256 and CRAM-MD5 in a session, where no password is sent."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import structlog.testing

from gatepost.core.checks.auth_failures import AuthFailures
from gatepost.core.envelope import Trust
from gatepost.core.manifest.relay_policy import Mechanism, RequireFor
from gatepost.core.manifest.settings import Role
from gatepost.core.ports.directory import Account
from gatepost.core.sasl_scram import derive_verifier, write_verifier
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

POLICY: dict[str, Any] = {
    "role": Role.SUBMISSION,
    "auth_enabled": True,
    "auth_directory": "people",
    "auth_require_tls": False,
    "auth_mechanisms": (Mechanism.SCRAM_SHA_256, Mechanism.CRAM_MD5, Mechanism.PLAIN, Mechanism.LOGIN),
}


def b64(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


async def challenged(client: Client, line: str) -> str:
    reply = await client.ask(line)
    assert reply.startswith("334 "), reply
    return base64.b64decode(reply[4:]).decode()


async def scram(client: Client, login: str, password: str, *, initial: bool = True) -> str:
    """The reply to the proof, or after the server has shown its own one, the reply to the end."""
    first = f"n={login},r=clientnonce"
    if initial:
        server = await challenged(client, f"AUTH SCRAM-SHA-256 {b64('n,,' + first)}")
    else:
        assert await client.ask("AUTH SCRAM-SHA-256") == "334 "
        server = await challenged(client, b64("n,," + first))
    fields = dict(field.split("=", 1) for field in server.split(","))
    assert fields["r"].startswith("clientnonce")
    assert len(fields["r"]) > 30
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    without_proof = f"c=biws,r={fields['r']}"
    auth = f"{first},{server},{without_proof}".encode()
    signature = hmac.digest(hashlib.sha256(client_key).digest(), auth, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    reply = await client.ask(b64(f"{without_proof},p={b64(proof)}"))
    if not reply.startswith("334 "):
        return reply
    shown = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), auth, "sha256")
    assert base64.b64decode(reply[4:]).decode() == f"v={b64(shown)}", "the server does not know the verifier"
    return await client.ask("")


async def cram(client: Client, login: str, password: str) -> str:
    challenge = await challenged(client, "AUTH CRAM-MD5")
    assert challenge.endswith("@mx.example.test>")
    return await client.ask(b64(f"{login} {hmac.new(password.encode(), challenge.encode(), 'md5').hexdigest()}"))


@pytest.mark.requirement("S0-12")
@pytest.mark.requirement("S4-5")
async def test_every_mechanism_logs_in_and_lets_relay(make_edge: MakeEdge) -> None:
    """Fails without AUTH by CRAM-MD5, PLAIN, LOGIN and SCRAM being offered, and each letting the client relay."""
    edge = await make_edge(**POLICY, auth_require_for=RequireFor.RELAY)
    client = await edge.client()
    assert "AUTH SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN" in await client.ask("EHLO x.example")
    for number, way in enumerate((scram, cram, plain, login)):
        client = await edge.client()
        assert await way(client, "alice", "secret-a") == "235 2.7.0 Authentication successful", way
        await client.begin("friend@far.example", sender="alice@example.test")
        client.send(b".\r\n")
        await client.reply()
        envelope, _ = edge.messages()[number]
        assert envelope.client.login == "alice"
        assert envelope.trust is Trust.AUTHENTICATED
    client = await edge.client()
    assert (await scram(client, "bob@example.test", "secret-b", initial=False)).startswith("235")
    assert (await client.ask("AUTH CRAM-MD5")).startswith("503 5.5.1")


async def plain(client: Client, name: str, password: str) -> str:
    response = b64(f"\0{name}\0{password}")
    return await client.ask(f"AUTH PLAIN {response}")


async def login(client: Client, name: str, password: str) -> str:
    await client.ask(f"AUTH LOGIN {b64(name)}")
    return await client.ask(b64(password))


@pytest.mark.requirement("S2-2")
async def test_one_stored_password_for_all_mechanisms(make_edge: MakeEdge) -> None:
    """Fails without every mechanism being checked against one and the same stored value: a stored verifier serves
    SCRAM, a password in clear all of them, as it serves the mailbox server beside us."""
    edge = await make_edge(**POLICY)
    for way in (plain, login, scram, cram):
        assert (await way(await edge.client(), "alice", "secret-a")).startswith("235"), way
    keep_only_a_verifier(edge, "alice", "secret-a")
    client = await edge.client()
    assert (await scram(client, "alice", "secret-a")).startswith("235")
    assert (await cram(await edge.client(), "alice", "secret-a")).startswith("535 5.7.8")


def keep_only_a_verifier(edge: Edge, name: str, password: str, iterations: int = 5000) -> None:
    text = write_verifier(derive_verifier(password, b"sixteen bytes...", iterations))
    before = edge.directory.account

    async def account(login: str) -> Account | None:
        found = await before(login)
        return Account(found.entry, (text,)) if found is not None and found.entry.name == name else found

    edge.directory.account = account  # type: ignore[method-assign]


@pytest.mark.parametrize("way", [scram, cram])
async def test_what_fails_looks_alike(make_edge: MakeEdge, way: Any) -> None:
    """A wrong password, a login that does not exist, one without a secret, one that may not: the same dialogue."""
    edge = await make_edge(**POLICY)
    edge.directory.add("nopassword@example.test")
    replies = set()
    for name, password in (
        ("alice", "wrong"),
        ("nobody", "secret-a"),
        ("nopassword", "x"),
        ("nologin", "secret-n"),
    ):
        client = await edge.client()
        replies.add((await way(client, name, password)).rpartition(" ")[0])
        (session,) = (one for one in edge.server.sessions if one.auth_failures)
        assert session.account is None
        await client.close()
        await edge.until(lambda: not edge.server.sessions)
    assert replies == {"535 5.7.8 authentication credentials are not valid (auth)"}
    assert metrics.AUTH.values["mx", "NothingStored"] >= 1, "for the administrator"


async def test_a_login_that_does_not_exist_has_a_salt_like_the_others(make_edge: MakeEdge) -> None:
    """It is the same at each try, and has as many iterations as the verifiers that are stored here."""
    edge = await make_edge(**POLICY)
    keep_only_a_verifier(edge, "alice", "secret-a", 7000)

    async def first(login: str) -> tuple[str, str]:
        client = await edge.client()
        server = await challenged(client, f"AUTH SCRAM-SHA-256 {b64(f'n,,n={login},r=abc')}")
        assert (await client.ask("*")).startswith("501 5.0.0")
        _, salt, iterations = server.split(",")
        return salt, iterations

    known = await first("alice")
    assert known == await first("alice")
    one = await first("nobody")
    assert one == await first("nobody")
    assert one[1] == known[1] == "i=7000"
    assert len(one[0]) == len(known[0])
    assert one[0] not in (known[0], (await first("nobody2"))[0])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["AUTH CRAM-MD5 " + b64("alice " + "0" * 32)], "501 5.5.2"),  # the server begins
        (["AUTH CRAM-MD5", b64("alice")], "501 5.5.2"),
        (["AUTH CRAM-MD5", "*"], "501 5.0.0"),
        (["AUTH SCRAM-SHA-256 " + b64("p=tls-unique,,n=alice,r=abc")], "501 5.5.2"),
        (["AUTH SCRAM-SHA-256 " + b64("n,a=bob,n=alice,r=abc")], "535 5.7.8"),
        (["AUTH SCRAM-SHA-256 " + b64("n,,n=alice,r=abc"), b64("c=biws,r=abc,p=AAAA")], "501 5.5.2"),
        (["AUTH SCRAM-SHA-256 " + b64("n,,n=alice,r=abc"), "*"], "501 5.0.0"),
        (["AUTH SCRAM-SHA-256", "!!!"], "501 5.5.2"),
        (["AUTH SCRAM-SHA-256-PLUS " + b64("p=tls-unique,,n=alice,r=abc")], "504 5.5.4"),
    ],
)
async def test_broken_dialogues(make_edge: MakeEdge, lines: list[str], expected: str) -> None:
    edge = await make_edge(**POLICY)
    client = await edge.client()
    for line in lines[:-1]:
        assert (await client.ask(line)).startswith("334")
    assert (await client.ask(lines[-1])).startswith(expected)
    assert (await client.ask("MAIL FROM:<x@example.org>")).startswith("250"), "the session goes on"
    (session,) = edge.server.sessions
    assert session.account is None


async def test_the_end_of_a_success_is_an_empty_line(make_edge: MakeEdge) -> None:
    """RFC 4954 4: only when the client has taken the server's proof is it logged in."""
    for answer, expected in (("*", "501 5.0.0"), (b64("x"), "501 5.5.2")):
        edge = await make_edge(**POLICY)
        client = await edge.client()
        original = client.ask

        async def ask(line: str | bytes, original: Any = original, answer: str = answer) -> str:
            return str(await original(line if line != "" else answer))

        client.ask = ask  # type: ignore[method-assign]
        assert (await scram(client, "alice", "secret-a")).startswith(expected)
        (session,) = edge.server.sessions
        assert session.account is None


async def test_failures_are_counted_and_end_the_session(make_edge: MakeEdge) -> None:
    edge = await make_edge(**POLICY)
    client = await edge.client()
    assert (await scram(client, "alice", "wrong")).startswith("535")
    assert (await cram(client, "alice", "wrong")).startswith("535")
    assert (await plain(client, "alice", "wrong")).startswith("535")
    assert (await client.reply()).startswith("421 4.7.0")


async def test_guessing_leads_to_a_ban_as_with_passwords(make_edge: MakeEdge) -> None:
    edge = await make_edge(**POLICY, auth_failures=AuthFailures(delay=0.0, most=2))
    client = await edge.client()
    assert (await scram(client, "alice", "wrong")).startswith("535")
    assert edge.server.bans.client("127.0.0.1") is None
    assert (await cram(client, "alice", "wrong")).startswith("535")
    assert edge.server.bans.client("127.0.0.1") is not None


async def test_directory_away(make_edge: MakeEdge) -> None:
    edge = await make_edge(**POLICY)
    edge.directory.away = True
    client = await edge.client()
    assert (await client.ask(f"AUTH SCRAM-SHA-256 {b64('n,,n=alice,r=abc')}")).startswith("454 4.7.0")
    assert (await cram(client, "alice", "secret-a")).startswith("454 4.7.0")


@pytest.mark.requirement("S0-5")
async def test_an_account_that_must_not_send_its_password(make_edge: MakeEdge) -> None:
    """Fails without the account's own switch: with it PLAIN and LOGIN are refused even with the right password, and
    nobody learns that it was right; without it the better mechanisms are there for clients that know them."""
    edge = await make_edge(**POLICY)
    edge.directory.entries = {
        key: msgspec.structs.replace(entry, secure_login=entry.name == "alice")
        for key, entry in edge.directory.entries.items()
    }
    client = await edge.client()
    right, wrong = await plain(client, "alice", "secret-a"), await login(client, "alice", "wrong")
    assert right.startswith("535 5.7.8")
    assert right.rpartition(" ")[0] == wrong.rpartition(" ")[0]
    for way in (scram, cram):
        assert (await way(await edge.client(), "alice", "secret-a")).startswith("235")
    for way in (scram, cram, plain):
        assert (await way(await edge.client(), "bob", "secret-b")).startswith("235")


async def test_nothing_secret_is_told(make_edge: MakeEdge) -> None:
    edge = await make_edge(**POLICY)
    text = write_verifier(derive_verifier("secret-a", b"sixteen bytes..."))
    keep_only_a_verifier(edge, "alice", "secret-a", 4096)
    with structlog.testing.capture_logs() as lines:
        assert (await scram(await edge.client(), "alice", "hunter2")).startswith("535")
        assert (await cram(await edge.client(), "bob", "hunter2")).startswith("535")
    told = repr(lines) + repr(edge.events.all) + repr(await edge.directory.account("alice"))
    for secret in ("secret-a", "secret-b", "hunter2", text, text.split("$")[1]):
        assert secret not in told
