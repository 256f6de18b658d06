"""The PROXY protocol on a listener that requires it: who the client is, and what closes the connection."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from typing import TYPE_CHECKING

import pytest

from gatepost.core.configuration import ClientRule
from gatepost.core.manifest.settings import LimitSettings, Role
from gatepost.core.proxy_protocol import SIGNATURE
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

HERE = ("127.0.0.0/8",)
V1 = b"PROXY TCP4 192.0.2.7 203.0.113.25 51234 25\r\n"
V2 = (
    SIGNATURE
    + struct.pack("!BBH", 0x21, 0x11, 12 + 7)
    + socket.inet_aton("192.0.2.7")
    + socket.inet_aton("203.0.113.25")
    + struct.pack("!HH", 51234, 25)
    + b"\x04\x00\x04\0\0\0\0"  # a NOOP TLV
)
V2_SIX = (
    SIGNATURE
    + struct.pack("!BBH", 0x21, 0x21, 36)
    + socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::25")
    + struct.pack("!HH", 51234, 25)
)
LOCAL = SIGNATURE + struct.pack("!BBH", 0x20, 0x00, 0)


async def through(edge: Edge, header: bytes) -> Client:
    client = await edge.connect()
    client.send(header)
    return await client.hello()


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
async def test_the_client_is_the_proxied_one_everywhere(make_edge: MakeEdge, header: bytes) -> None:
    """Received, the envelope, events, and the rules for its network."""
    rule = ClientRule(("192.0.2.0/24",), ("Local",))
    edge = await make_edge(proxies=HERE, role=Role.INTERNAL, relay_clients=(rule,))
    client = await through(edge, header)
    await client.begin("friend@elsewhere.example", sender="bob@example.test")
    client.send(b".\r\n")
    assert (await client.reply()).startswith("250")
    ((envelope, _),) = edge.messages()
    assert (envelope.client.address, envelope.client.port) == ("192.0.2.7", 51234)
    assert "from client.example.org ([192.0.2.7])" in envelope.prepend
    assert edge.events.all[-1].facts["client"] == "192.0.2.7"
    # The address that it reached there is this host's too (relay_right rule 1).
    await client.ask("MAIL FROM:<bob@example.test>")
    assert (await client.ask("RCPT TO:<x@[203.0.113.25]>")).startswith("550 5.7.1")


async def test_ipv6(make_edge: MakeEdge) -> None:
    edge = await make_edge(proxies=HERE)
    client = await (await through(edge, V2_SIX)).begin()
    client.send(b".\r\n")
    assert (await client.reply()).startswith("250")
    assert "([IPv6:2001:db8::7])" in edge.messages()[0][0].prepend


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n"], ids=["v2", "v1"])
async def test_a_health_check_is_the_proxy_itself(make_edge: MakeEdge, header: bytes) -> None:
    edge = await make_edge(proxies=HERE)
    await through(edge, header)
    (session,) = edge.server.sessions
    assert session.client == "127.0.0.1"


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
async def test_byte_by_byte(make_edge: MakeEdge, header: bytes) -> None:
    """Any segmentation; what comes behind the header is not read with it."""
    edge = await make_edge(proxies=HERE)
    client = await edge.connect()
    client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for place in range(len(header)):
        client.send(header[place : place + 1])
        await asyncio.sleep(0)
    await client.hello()
    (session,) = edge.server.sessions
    assert session.client == "192.0.2.7"


async def test_who_speaks_before_the_greeting_is_refused_as_without_a_proxy(make_edge: MakeEdge) -> None:
    edge = await make_edge(proxies=HERE)
    client = await edge.connect()
    client.send(V1 + b"EHLO client.example.org\r\n")
    assert (await client.reply()).startswith("554 5.5.0")


def refused(reason: str) -> float:
    return metrics.PROXY_REFUSED.values.get(("mx", reason), 0)


@pytest.mark.parametrize(
    "sent",
    [
        b"EHLO client.example.org\r\n",
        b"PROXY TCP4 nonsense\r\n",
        b"PROXY TCP4 " + b"x" * 200,
        SIGNATURE + b"\x21\x11\xff\xff",
        SIGNATURE + b"\x51\x11\x00\x0c",
        V2.replace(b"\r\nQUIT\n", b"\r\nQUIT\r"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00",
    ],
    ids=["missing", "nonsense", "endless", "too long", "version", "signature", "tls"],
)
async def test_a_header_that_is_missing_or_malformed_closes(make_edge: MakeEdge, sent: bytes) -> None:
    edge = await make_edge(proxies=HERE)
    before = refused("malformed")
    client = await edge.connect()
    client.send(sent)
    try:
        heard = await client.rest()
    except ConnectionResetError:
        heard = b""
    assert heard == b"", "nothing is said to who is not known"
    assert refused("malformed") == before + 1
    assert not edge.server.sessions


async def test_no_header_in_time(make_edge: MakeEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatepost.edge.proxy.HEADER_TIMEOUT", 0.2)
    edge = await make_edge(proxies=HERE)
    before = refused("timeout")
    client = await edge.connect()
    client.send(V2[:20])
    assert await client.rest() == b""
    assert refused("timeout") == before + 1


async def test_an_untrusted_peer_is_closed_whatever_it_says(make_edge: MakeEdge) -> None:
    edge = await make_edge(proxies=("192.0.2.1",))
    before = refused("untrusted")
    client = await edge.connect()
    assert await client.rest() == b""
    assert refused("untrusted") == before + 1
    assert edge.messages() == []


async def test_a_port_check_is_no_trouble(make_edge: MakeEdge) -> None:
    edge = await make_edge(proxies=HERE)
    before = dict(metrics.PROXY_REFUSED.values)
    client = await edge.connect()
    await edge.until(lambda: edge.server.open_connections == 1)
    await client.close()
    await edge.until(lambda: edge.server.open_connections == 0)
    assert before == metrics.PROXY_REFUSED.values


async def test_without_the_setting_a_header_is_no_command(edge: Edge) -> None:
    """Nobody can choose an address by himself."""
    client = await edge.client()
    assert (await client.ask(V1.strip())).startswith("500 5.5.2")


async def test_before_an_implicit_handshake(make_edge: MakeEdge) -> None:
    """The header, then TLS, both in one segment if the balancer likes."""
    edge = await make_edge(implicit=True, proxies=HERE)
    assert edge.authority is not None
    context = edge.authority.client_context()

    def dialogue() -> bytes:
        with socket.create_connection(("127.0.0.1", edge.port), timeout=20) as plain:
            there, here = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(there, here, server_hostname="mx.example.test")
            with pytest.raises(ssl.SSLWantReadError):
                tls.do_handshake()
            plain.sendall(V1 + here.read())
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    there.write(plain.recv(65536))
            plain.sendall(here.read())
            while True:
                try:
                    return tls.read(4096)
                except ssl.SSLWantReadError:
                    there.write(plain.recv(65536))

    heard = await asyncio.get_running_loop().run_in_executor(None, dialogue)
    assert heard.startswith(b"220 ")


async def test_connections_that_only_hold_the_door_count(make_edge: MakeEdge) -> None:
    """limits.sessions bounds them together with sessions; above it 421 at once."""
    edge = await make_edge(proxies=HERE, limits=LimitSettings(sessions=2))
    silent = await edge.connect()
    await edge.until(lambda: edge.server.open_connections == 1)
    await through(edge, V1)
    await edge.until(lambda: edge.server.open_connections == 2)
    third = await edge.connect()
    assert (await third.reply()).startswith("421 4.3.2")
    await silent.close()
    await edge.until(lambda: edge.server.open_connections == 1)
    await through(edge, V1)


async def test_a_drain_does_not_wait_for_headers(make_edge: MakeEdge) -> None:
    edge = await make_edge(proxies=HERE)
    client = await edge.connect()
    await edge.until(lambda: edge.server.open_connections == 1)
    async with asyncio.timeout(20):
        await edge.server.drain()
    assert await client.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        await edge.connect()
