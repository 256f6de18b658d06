"""The PROXY protocol's parser: both versions, what says nothing, what is malformed, and any bytes at all."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.proxy_protocol import (
    MAX_V2_REST,
    SIGNATURE,
    V2_FIXED,
    Proxied,
    ProxyError,
    parse_v1,
    parse_v2,
    v2_rest,
)

V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6)
PORTS = st.integers(0, 65535)


def header_v2(command: int, family: int, rest: bytes) -> tuple[bytes, bytes]:
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(rest)), rest


def written(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


@given(st.one_of(st.tuples(V4, V4), st.tuples(V6, V6)), PORTS, PORTS)
def test_version_1(addresses: tuple[ipaddress.IPv4Address, ipaddress.IPv4Address], one: int, other: int) -> None:
    client, server = addresses
    line = f"PROXY TCP{client.version} {client} {server} {one} {other}\r\n".encode()
    assert parse_v1(line) == Proxied(written(client), one, written(server), other)


@given(st.one_of(st.tuples(V4, V4), st.tuples(V6, V6)), PORTS, PORTS, st.binary(max_size=100))
def test_version_2_with_any_tlvs(
    addresses: tuple[ipaddress.IPv4Address, ipaddress.IPv4Address], one: int, other: int, tlvs: bytes
) -> None:
    client, server = addresses
    family = 0x11 if client.version == 4 else 0x21
    rest = client.packed + server.packed + struct.pack("!HH", one, other) + tlvs
    assert parse_v2(*header_v2(1, family, rest)) == Proxied(written(client), one, written(server), other)


@pytest.mark.parametrize(
    "line", [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", b"PROXY UNKNOWN \0\xff\r\n"]
)
def test_version_1_may_say_nothing(line: bytes) -> None:
    assert parse_v1(line) is None


@pytest.mark.parametrize(
    ("command", "family", "rest"),
    [
        (0, 0x00, b""),  # LOCAL, as health checks have it
        (0, 0x11, b"x" * 12),  # LOCAL: the addresses must be ignored
        (1, 0x00, b""),
        (1, 0x00, b"tlv"),
        (1, 0x10, b"x" * 12),
        (1, 0x31, b"/" * 216),
    ],
)
def test_version_2_may_say_nothing(command: int, family: int, rest: bytes) -> None:
    assert parse_v2(*header_v2(command, family, rest)) is None


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 -2\r\n",
        b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nEHLO x\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY\r\n",
        b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY UNKNOWN " + b"x" * 93 + b"\r\n" + b"x",
        b"PROXY UNKNOWN " + b"x" * 94 + b"\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"",
    ],
)
def test_version_1_malformed(line: bytes) -> None:
    with pytest.raises(ProxyError):
        parse_v1(line)


@pytest.mark.parametrize(
    ("head", "rest"),
    [
        (SIGNATURE + b"\x21\x11\x00\x0c", b"x" * 11),
        (SIGNATURE + b"\x21\x11\x00\x0b", b"x" * 11),
        (SIGNATURE + b"\x21\x21\x00\x0c", b"x" * 12),
        (SIGNATURE + b"\x21\x31\x00\x0c", b"x" * 12),
        (SIGNATURE + b"\x21\x12\x00\x0c", b"x" * 12),  # a datagram
        (SIGNATURE + b"\x21\x41\x00\x0c", b"x" * 12),
        (SIGNATURE + b"\x21\x13\x00\x0c", b"x" * 12),
        (SIGNATURE + b"\x22\x11\x00\x0c", b"x" * 12),
        (SIGNATURE + b"\x11\x11\x00\x0c", b"x" * 12),
        (SIGNATURE + struct.pack("!BBH", 0x21, 0x11, MAX_V2_REST + 1), b"x" * (MAX_V2_REST + 1)),
        (SIGNATURE[:-1] + b"x\x21\x11\x00\x00", b""),
        (SIGNATURE + b"\x21\x11\x00", b""),
    ],
)
def test_version_2_malformed(head: bytes, rest: bytes) -> None:
    with pytest.raises(ProxyError):
        parse_v2(head, rest)


@given(st.binary(max_size=120))
def test_any_line(line: bytes) -> None:
    """A header or ProxyError, nothing else."""
    try:
        found = parse_v1(line)
    except ProxyError:
        return
    assert line.startswith(b"PROXY ")
    assert line.endswith(b"\r\n")
    assert found is None or ipaddress.ip_address(found.client)


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=300))
def test_any_header(fixed: bytes, rest: bytes) -> None:
    head = SIGNATURE + fixed
    assert len(head) == V2_FIXED
    try:
        assert v2_rest(head) <= MAX_V2_REST
        parse_v2(head, rest)
    except ProxyError:
        return
    assert v2_rest(head) == len(rest)
