"""AUTH, and what an authenticated client may do."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing

from gatepost.core.envelope import Trust
from gatepost.core.manifest.relay_policy import Mechanism, RequireFor, SenderMatch
from gatepost.core.manifest.settings import Role
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

PLAIN_POLICY: dict[str, Any] = {
    "role": Role.SUBMISSION,
    "auth_enabled": True,
    "auth_directory": "people",
    "auth_require_tls": False,
}


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def plain(login: str, password: str, authorization: str = "") -> str:
    response = b64(f"{authorization}\0{login}\0{password}")
    return f"AUTH PLAIN {response}"


async def logged_in(edge: Edge) -> Client:
    client = await edge.client()
    assert await client.ask(plain("alice", "secret-a")) == "235 2.7.0 Authentication successful"
    return client


async def test_plain_in_both_forms(make_edge: MakeEdge) -> None:
    edge = await make_edge(**PLAIN_POLICY)
    await logged_in(edge)
    client = await edge.client()
    assert await client.ask("auth plain") == "334 "
    assert (await client.ask(b64("\0bob@example.test\0secret-b"))).startswith("235 2.7.0")
    assert (await client.ask(plain("bob", "secret-b"))).startswith("503 5.5.1")


async def test_login_in_both_forms(make_edge: MakeEdge) -> None:
    edge = await make_edge(**PLAIN_POLICY)
    client = await edge.client()
    assert await client.ask("AUTH LOGIN") == "334 VXNlcm5hbWU6"
    assert await client.ask(b64("alice")) == "334 UGFzc3dvcmQ6"
    assert (await client.ask(b64("secret-a"))).startswith("235")
    client = await edge.client()
    assert await client.ask(f"AUTH LOGIN {b64('bob')}") == "334 UGFzc3dvcmQ6"
    assert (await client.ask(b64("secret-b"))).startswith("235")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (plain("alice", "wrong"), "535 5.7.8"),
        (plain("nobody", "secret-a"), "535 5.7.8"),
        (plain("nologin", "secret-n"), "535 5.7.8"),
        (plain("alice", "secret-a", "bob"), "535 5.7.8"),
        (plain("alice", ""), "501 5.5.2"),
        ("AUTH PLAIN =", "501 5.5.2"),
        ("AUTH PLAIN !!!", "501 5.5.2"),
        (f"AUTH PLAIN {b64('no separators')}", "501 5.5.2"),
        (f"AUTH PLAIN {base64.b64encode(bytes([0, 255, 0, 65])).decode()}", "501 5.5.2"),
        ("AUTH CRAM-MD5", "504 5.5.4"),
        ("AUTH", "504 5.5.4"),
        ("AUTH LOGIN !!!", "501 5.5.2"),
    ],
)
async def test_what_is_refused(make_edge: MakeEdge, command: str, expected: str) -> None:
    edge = await make_edge(**PLAIN_POLICY)
    client = await edge.client()
    assert (await client.ask(command)).startswith(expected)
    (session,) = edge.server.sessions
    assert session.account is None
    assert (await client.ask("MAIL FROM:<x@example.org>")).startswith("250"), "the session goes on"


async def test_cancelled(make_edge: MakeEdge) -> None:
    edge = await make_edge(**PLAIN_POLICY)
    client = await edge.client()
    for mechanism in ("PLAIN", "LOGIN"):
        assert (await client.ask(f"AUTH {mechanism}")).startswith("334")
        assert (await client.ask("*")).startswith("501 5.0.0")
    assert (await client.ask("NOOP")).startswith("250")


async def test_only_where_and_when_it_is_allowed(make_edge: MakeEdge) -> None:
    edge = await make_edge(**{**PLAIN_POLICY, "auth_mechanisms": (Mechanism.PLAIN,)})
    client = await edge.client()
    assert "AUTH PLAIN\r\n" in await client.ask("EHLO x.example") + "\r\n"
    assert (await client.ask("AUTH LOGIN")).startswith("504")
    await client.ask("MAIL FROM:<x@example.org>")
    assert (await client.ask("AUTH PLAIN")).startswith("503 5.5.1")
    client = await edge.connect()
    await client.reply()
    assert (await client.ask("AUTH PLAIN")).startswith("503")
    edge.configure(auth_enabled=False)
    client = await edge.client()
    assert (await client.ask("AUTH PLAIN")).startswith("502")


@pytest.mark.requirement("S0-63")
async def test_tls_first_where_it_is_required(make_edge: MakeEdge) -> None:
    """Not offered in clear, refused in clear with 538, offered inside TLS. Fails without requireTLS."""
    edge = await make_edge(**{**PLAIN_POLICY, "auth_require_tls": True}, tls=True)
    client = await edge.client()
    assert "AUTH" not in await client.ask("EHLO x.example")
    assert (await client.ask(plain("alice", "secret-a"))).startswith("538 5.7.11")
    assert not edge.directory.asked.is_set(), "the password was used"
    await client.ask("STARTTLS")
    assert edge.authority is not None
    await client.start_tls(edge.authority.client_context())
    assert "AUTH PLAIN LOGIN" in await client.ask("EHLO x.example")
    assert (await client.ask(plain("alice", "secret-a"))).startswith("235")
    assert "AUTH" not in await client.ask("EHLO x.example")
    await client.begin(sender="alice@example.test")
    client.send(b".\r\n")
    await client.reply()
    assert " with ESMTPSA (TLSv1.3 " in edge.messages()[0][0].prepend


async def test_directory_away(make_edge: MakeEdge) -> None:
    edge = await make_edge(**PLAIN_POLICY)
    edge.directory.away = True
    client = await edge.client()
    assert (await client.ask(plain("alice", "secret-a"))).startswith("454 4.7.0")
    edge.directory.away = False
    assert (await client.ask(plain("alice", "secret-a"))).startswith("235")
    edge = await make_edge(**{**PLAIN_POLICY, "auth_directory": "elsewhere"})
    client = await edge.client()
    assert (await client.ask(plain("alice", "secret-a"))).startswith("454 4.7.0")


async def test_guessing_ends_the_session(make_edge: MakeEdge) -> None:
    edge = await make_edge(**PLAIN_POLICY)
    client = await edge.client()
    for _ in range(2):
        assert (await client.ask(plain("alice", "wrong"))).startswith("535")
    client.send(plain("alice", "wrong") + "\r\n")
    replies = (await client.rest()).decode().splitlines()
    assert [reply[:9] for reply in replies] == ["535 5.7.8", "421 4.7.0"]
    assert "(auth-failures)" in replies[1]


async def test_no_credential_is_ever_told(make_edge: MakeEdge) -> None:
    """Neither the log, nor events, nor replies have a password or a response, whatever went wrong."""
    edge = await make_edge(**PLAIN_POLICY)
    told: list[str] = []
    with structlog.testing.capture_logs() as lines:
        for command in (
            plain("alice", "hunter2"),
            f"AUTH PLAIN {b64('hunter2')}",
            "AUTH PLAIN hunter2!",
            f"AUTH LOGIN {b64('hunter2')}",
        ):
            client = await edge.client()
            told.append(await client.ask(command))
            if told[-1].startswith("334"):
                told.append(await client.ask(b64("hunter2")))
    everything = repr(lines) + repr(edge.events.all) + repr(told)
    assert "hunter2" not in everything
    assert b64("hunter2") not in everything
    assert b64("\0alice\0hunter2") not in everything


@pytest.mark.requirement("S0-3")
async def test_login_disabled_is_a_switch_of_its_own(make_edge: MakeEdge) -> None:
    """Fails without a separate login switch: such an account gets mail, but may not authenticate, so not relay."""
    edge = await make_edge(**PLAIN_POLICY)
    client = await edge.client()
    assert (await client.ask(plain("nologin", "secret-n"))).startswith("535 5.7.8")
    await client.ask("MAIL FROM:<nologin@example.test>")
    assert (await client.ask("RCPT TO:<nologin@example.test>")).startswith("250")
    assert (await client.ask("RCPT TO:<friend@far.example>")).startswith("550 5.7.1")


@pytest.mark.requirement("S0-14")
async def test_relay_right_of_an_authenticated_client(make_edge: MakeEdge) -> None:
    """Fails without AUTH being what lets a client relay where no network is listed, inside or outside."""
    edge = await make_edge(**PLAIN_POLICY, auth_require_for=RequireFor.RELAY)
    client = await edge.client()
    await client.ask("MAIL FROM:<alice@example.test>")
    assert (await client.ask("RCPT TO:<friend@far.example>")).startswith("550 5.7.1")
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")
    before = metrics.AUTH.values.get(("mx", "Accepted"), 0)
    client = await logged_in(edge)
    assert metrics.AUTH.values["mx", "Accepted"] == before + 1
    await client.begin("friend@far.example", sender="alice@example.test")
    client.send(b".\r\n")
    await client.reply()
    ((envelope, _),) = edge.messages()
    assert envelope.client.login == "alice"
    assert envelope.trust is Trust.AUTHENTICATED
    assert " with ESMTPA (" in envelope.prepend


@pytest.mark.requirement("S2-4")
async def test_submission_refuses_local_recipients_before_auth(make_edge: MakeEdge) -> None:
    """Fails without requireFor All also counting for recipients of our own domains."""
    edge = await make_edge(**PLAIN_POLICY, auth_require_for=RequireFor.ALL)
    client = await edge.client()
    assert (await client.ask("MAIL FROM:<bob@example.test>")).startswith("530 5.7.0")
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("503")
    client = await logged_in(edge)
    assert (await client.ask("MAIL FROM:<alice@example.test>")).startswith("250")
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")


async def test_required_authentication_without_any_directory_is_closed(make_edge: MakeEdge) -> None:
    """What compile makes of a submission listener without directories lets nobody in."""
    edge = await make_edge(role=Role.SUBMISSION, auth_require_for=RequireFor.ALL, auth_enabled=False)
    client = await edge.client()
    assert (await client.ask("MAIL FROM:<bob@example.test>")).startswith("530 5.7.0")


@pytest.mark.requirement("S0-15")
@pytest.mark.parametrize(
    ("match", "sender", "allowed"),
    [
        (SenderMatch.STRICT, "alice@example.test", True),
        (SenderMatch.STRICT, "sales@EXAMPLE.test", True),
        (SenderMatch.STRICT, "alice+news@example.test", True),
        (SenderMatch.STRICT, "alice@example.invalid", True),
        (SenderMatch.STRICT, "", True),
        (SenderMatch.STRICT, "bob@example.test", False),
        (SenderMatch.STRICT, "alice@far.example", False),
        (SenderMatch.DOMAIN, "bob@example.test", True),
        (SenderMatch.DOMAIN, "bob@example.invalid", True),
        (SenderMatch.DOMAIN, "alice@far.example", False),
        (SenderMatch.NONE, "alice@far.example", True),
    ],
)
async def test_sender_match(make_edge: MakeEdge, match: SenderMatch, sender: str, allowed: bool) -> None:
    """Fails without the comparison of MAIL FROM with the login's own addresses: a colleague could be posed as."""
    edge = await make_edge(
        **PLAIN_POLICY,
        auth_sender_match=match,
        domains=(make_edge.domain(alias_domains=("example.invalid",)),),
    )
    client = await logged_in(edge)
    reply = await client.ask(f"MAIL FROM:<{sender}>")
    assert reply.startswith("250" if allowed else f"553 5.7.1 <{sender}>: "), reply


async def test_starttls_after_auth_is_refused(make_edge: MakeEdge) -> None:
    """No session of one identity turns into an encrypted one (session fixation)."""
    edge = await make_edge(**PLAIN_POLICY, tls=True)
    client = await logged_in(edge)
    assert (await client.ask("STARTTLS")).startswith("503 5.5.1")


async def test_a_long_response_is_bounded(make_edge: MakeEdge) -> None:
    """RFC 4954 4: 12288 octets are read; more is passed over without keeping it."""
    edge = await make_edge(**PLAIN_POLICY)
    client = await edge.client()
    assert (await client.ask("AUTH PLAIN")).startswith("334")
    assert (await client.ask("A" * 12286)).startswith("501 5.5.2")
    assert (await client.ask("AUTH PLAIN")).startswith("334")
    assert (await client.ask("A" * 12287)).startswith("500 5.5.2")
    assert (await client.ask("AUTH PLAIN")).startswith("334")
    client.send(b"A" * 1_000_000)
    assert (await client.ask("A")).startswith("500 5.5.2")
    assert (await client.ask("NOOP")).startswith("250")
