"""XCLIENT: only trusted hosts, a session as of the client named, and none of the host's own rights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gatepost.core.configuration import ClientRule
from gatepost.core.manifest.settings import Role

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

HERE = ("127.0.0.1",)
FRIEND = "friend@elsewhere.example"


async def passing_on(edge: Edge, attributes: str) -> Client:
    client = await edge.client()
    assert (await client.ask(f"XCLIENT {attributes}")).startswith("220 mx.example.test ESMTP")
    return client


async def test_it_is_offered_to_trusted_hosts_only(make_edge: MakeEdge) -> None:
    for trusted, offered in ((HERE, True), (("192.0.2.1",), False)):
        edge = await make_edge(xclient=trusted)
        client = await edge.connect()
        await client.reply()
        hello = await client.ask("EHLO proxy.example.org")
        assert ("XCLIENT NAME ADDR PORT PROTO HELO LOGIN" in hello) is offered
        assert (await client.ask("XCLIENT ADDR=192.0.2.7"))[:3] == ("220" if offered else "502")


async def test_the_client_is_the_one_named(make_edge: MakeEdge) -> None:
    edge = await make_edge(xclient=HERE)
    client = await passing_on(edge, "ADDR=IPV6:2001:db8::7 PORT=4711 NAME=client.example.org")
    assert (await client.ask("MAIL FROM:<a@example.org>")).startswith("503"), "the session begins anew"
    assert "XCLIENT" in await client.ask("EHLO helo.example.org")
    await client.begin()
    client.send(b".\r\n")
    assert (await client.reply()).startswith("250")
    ((envelope, _),) = edge.messages()
    named = envelope.client
    assert (named.address, named.port, named.name) == ("2001:db8::7", 4711, "client.example.org")
    assert "from helo.example.org (client.example.org [IPv6:2001:db8::7])" in envelope.prepend
    (listener,) = edge.server._listeners.values()
    assert dict(listener.hosts) == {"2001:db8::7": 1}
    await client.close()
    await edge.until(lambda: not edge.server.sessions)
    assert not listener.hosts


async def test_helo_and_proto_are_taken_over(make_edge: MakeEdge) -> None:
    edge = await make_edge(xclient=HERE)
    client = await passing_on(edge, "ADDR=192.0.2.7 HELO=old.example.org PROTO=SMTP")
    await client.begin()
    client.send(b".\r\n")
    assert (await client.reply()).startswith("250")
    assert "from old.example.org ([192.0.2.7])" in edge.messages()[0][0].prepend
    assert "with SMTP (" in edge.messages()[0][0].prepend


async def test_the_hosts_own_rights_do_not_go_to_its_clients(make_edge: MakeEdge) -> None:
    rules = (ClientRule(("127.0.0.1",), ("Local",)),)
    edge = await make_edge(
        xclient=HERE, role=Role.INTERNAL, relay_clients=rules, auth_enabled=True, auth_require_tls=False,
        auth_directory="people",
    )  # fmt: skip
    for address in ("192.0.2.7", "[UNAVAILABLE]"):
        client = await edge.client()
        assert (await client.ask("AUTH PLAIN AGJvYgBzZWNyZXQtYg==")).startswith("235")
        assert (await client.ask(f"XCLIENT ADDR={address}")).startswith("220")
        await client.ask("EHLO client.example.org")
        assert (await client.ask("MAIL FROM:<bob@example.test>")).startswith("250")
        assert (await client.ask(f"RCPT TO:<{FRIEND}>")).startswith("550 5.7.1")


async def test_a_login_is_one_of_the_directory(make_edge: MakeEdge) -> None:
    edge = await make_edge(
        xclient=HERE,
        auth_enabled=True,
        auth_require_tls=False,
        auth_directory="people",
        errors_before_disconnect=99,
    )
    for login, code in (("bob@example.test", "220"), ("bob", "220"), ("nobody", "550"), ("nologin", "550")):
        client = await edge.client()
        assert (await client.ask(f"XCLIENT ADDR=192.0.2.7 LOGIN={login}"))[:3] == code, login
        await client.ask("EHLO client.example.org")
        relays = await client.code("MAIL FROM:<bob@example.test>"), await client.code(f"RCPT TO:<{FRIEND}>")
        assert relays == ((250, 250) if code == "220" else (250, 550)), login
    edge.directory.away = True
    client = await edge.client()
    assert (await client.ask("XCLIENT LOGIN=bob")).startswith("454 4.7.0")


async def test_it_needs_its_place(make_edge: MakeEdge) -> None:
    edge = await make_edge(xclient=HERE)
    client = await edge.client()
    assert (await client.ask("XCLIENT FOO=bar")).startswith("501 5.5.4")
    await client.ask("MAIL FROM:<a@example.org>")
    assert (await client.ask("XCLIENT ADDR=192.0.2.7")).startswith("503 5.5.1")


async def test_limits_of_the_client_named_hold(make_edge: MakeEdge) -> None:
    edge = await make_edge(xclient=HERE, per_host_concurrent=3)
    for _ in range(3):
        await passing_on(edge, "ADDR=192.0.2.7")
    client = await edge.client()
    assert (await client.ask("XCLIENT ADDR=192.0.2.7")).startswith("421 4.7.0")
    await edge.until(lambda: len(edge.server.sessions) == 3)
    await passing_on(edge, "ADDR=192.0.2.8")


@pytest.mark.parametrize("together", ["EHLO x.example", "MAIL FROM:<a@example.org>"])
async def test_nothing_may_follow_it_in_a_group(make_edge: MakeEdge, together: str) -> None:
    edge = await make_edge(xclient=HERE)
    client = await edge.client()
    client.send(f"XCLIENT ADDR=192.0.2.7\r\n{together}\r\n")
    assert (await client.reply()).startswith("503 5.5.0")
