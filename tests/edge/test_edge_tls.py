"""STARTTLS and implicit TLS with real handshakes, resumption, versions, and certificates that change."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog.testing

from gatepost.core.manifest.relay_policy import TlsMode, TlsVersion
from gatepost.edge.tls import TlsContext, TlsError
from testbed.tls import Authority, Certificate

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

HOSTNAME = "mx.example.test"


def context_of(edge: Edge) -> ssl.SSLContext:
    assert edge.authority is not None
    return edge.authority.client_context()


async def encrypted(edge: Edge) -> Client:
    client = await edge.client()
    assert (await client.ask("STARTTLS")).startswith("220 2.0.0")
    await client.start_tls(context_of(edge))
    return client


@pytest.mark.requirement("S4-72")
async def test_starttls_and_a_message_over_it(make_edge: MakeEdge) -> None:
    """RFC 3207 from EHLO to Received. Fails without STARTTLS on a listener."""
    edge = await make_edge(tls=True)
    client = await edge.client()
    client = await encrypted(edge)
    # RFC 3207 4.2: what was said before is forgotten
    assert (await client.ask("MAIL FROM:<a@example.org>")).startswith("503")
    hello = await client.ask("EHLO client.example.org")
    assert "STARTTLS" not in hello
    assert (await client.ask("STARTTLS")).startswith("503 5.5.1")
    await client.begin()
    client.send(b"Subject: x\r\n\r\nsecret\r\n.\r\n")
    assert (await client.reply()).startswith("250 2.0.0")
    ((envelope, value),) = edge.messages()
    assert value == b"Subject: x\r\n\r\nsecret\r\n"
    assert envelope.client.tls.startswith("TLSv1.3 ")
    assert f"with ESMTPS ({envelope.client.tls})" in envelope.prepend
    assert (await client.ask("QUIT")).startswith("221")


async def test_ehlo_offers_starttls_only_where_it_is_possible(make_edge: MakeEdge) -> None:
    for arguments, offered in (
        ({"tls": True}, True),
        ({"tls": True, "tls_mode": TlsMode.DISABLED}, False),
        ({"tls": False}, False),
    ):
        edge = await make_edge(**arguments)
        client = await edge.client()
        hello = await client.ask("EHLO client.example.org")
        assert ("STARTTLS" in hello.replace("-", " ").split()) is offered
        assert (await client.ask("STARTTLS")).startswith("220" if offered else "502")


async def test_starttls_needs_its_place(make_edge: MakeEdge) -> None:
    edge = await make_edge(tls=True)
    client = await edge.client()
    assert (await client.ask("STARTTLS now")).startswith("501")
    await client.ask("MAIL FROM:<a@example.org>")
    assert (await client.ask("STARTTLS")).startswith("503 5.5.1")
    client = await edge.connect()
    await client.reply()
    await client.ask("HELO client.example.org")
    assert (await client.ask("STARTTLS")).startswith("503")


async def test_require_lets_no_mail_in_before_tls(make_edge: MakeEdge) -> None:
    edge = await make_edge(tls=True, tls_mode=TlsMode.REQUIRE)
    client = await edge.client()
    assert (await client.ask("MAIL FROM:<a@example.org>")).startswith("530 5.7.0")
    client = await encrypted(edge)
    await client.ask("EHLO client.example.org")
    assert (await client.ask("MAIL FROM:<a@example.org>")).startswith("250")


async def test_implicit_tls(make_edge: MakeEdge) -> None:
    """RFC 8314 3.3: TLS from the first byte; the greeting comes inside it."""
    edge = await make_edge(implicit=True)
    client = await edge.connect(ssl=context_of(edge), server_hostname=HOSTNAME)
    await client.hello()
    assert (await client.ask("STARTTLS")).startswith("503")
    await client.begin()
    client.send(b".\r\n")
    assert (await client.reply()).startswith("250")
    ((envelope, _),) = edge.messages()
    assert envelope.client.tls.startswith("TLSv1.3 ")


async def test_a_failed_handshake_ends_the_session_quietly(make_edge: MakeEdge) -> None:
    edge = await make_edge(tls=True)
    client = await edge.client()
    assert (await client.ask("STARTTLS")).startswith("220")
    client.send(b"MAIL FROM:<injected@example.org>\r\n" * 20)
    heard = await client.rest()
    assert b"250" not in heard
    await edge.until(lambda: not edge.server.sessions)
    await edge.client()


async def test_client_gone_during_the_handshake(make_edge: MakeEdge) -> None:
    edge = await make_edge(tls=True)
    client = await edge.client()
    assert (await client.ask("STARTTLS")).startswith("220")
    client.reset()
    await edge.until(lambda: not edge.server.sessions)


async def test_minimum_version_follows_the_policy(make_edge: MakeEdge) -> None:
    """A change of policy counts for the next handshake, on the same listener."""
    edge = await make_edge(tls=True, tls_min_version=TlsVersion.V1_2)
    old = context_of(edge)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    client = await edge.client()
    await client.ask("STARTTLS")
    await client.start_tls(old)
    await client.ask("EHLO x.example")
    await client.begin()
    client.send(b".\r\n")
    await client.reply()
    assert edge.messages()[0][0].client.tls.startswith("TLSv1.2 ")
    edge.configure(tls_min_version=TlsVersion.V1_3)
    client = await edge.client()
    await client.ask("STARTTLS")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await client.start_tls(old)
    await encrypted(edge)


async def test_sessions_are_resumed(make_edge: MakeEdge) -> None:
    """A second connection of the same client skips the expensive part, also after the certificate was renewed."""
    edge = await make_edge(implicit=True)
    context = context_of(edge)
    loop = asyncio.get_running_loop()

    def connect(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
        import socket

        with (
            socket.create_connection(("127.0.0.1", edge.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname=HOSTNAME, session=session) as tls,
        ):
            tls.sendall(b"QUIT\r\n")
            while tls.recv(4096):
                pass
            return tls.session, bool(tls.session_reused)

    session, reused = await loop.run_in_executor(None, connect, None)
    assert not reused
    _, reused = await loop.run_in_executor(None, connect, session)
    assert reused


def test_a_renewed_certificate_is_taken_and_a_broken_one_is_not(
    tmp_path: Path, certificate: Callable[[], tuple[Authority, Certificate]]
) -> None:
    authority, first = certificate()
    second = authority.issue(HOSTNAME, "second.example.test", file="second")
    live = tmp_path / "tls.crt", tmp_path / "tls.key"
    shutil.copy(first.certificate, live[0])
    shutil.copy(first.key, live[1])
    tls = TlsContext("mx", [live])

    def shown() -> str:
        """The certificate that a client would see."""
        there, here = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = tls.context.wrap_bio(there, here, server_side=True)
        client = authority.client_context().wrap_bio(here, there, server_hostname=HOSTNAME)
        for _ in range(4):
            for side in (client, server):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
        found = client.getpeercert()
        assert found is not None
        return str(found["subjectAltName"])

    assert "second" not in shown()
    shutil.copy(second.certificate, live[0])  # half of the change: the key does not fit yet
    with structlog.testing.capture_logs() as lines:
        tls.refresh()
        tls.refresh()
    assert [line["event"] for line in lines] == ["certificate not reloaded"]
    assert "second" not in shown()
    shutil.copy(second.key, live[1])
    tls.refresh()
    assert "second" in shown()
    live[0].unlink()
    tls.refresh()
    assert "second" in shown()


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(TlsError, match=r"listener 'mx': certificate .*nowhere\.crt"):
        TlsContext("mx", [(tmp_path / "nowhere.crt", tmp_path / "nowhere.key")])
