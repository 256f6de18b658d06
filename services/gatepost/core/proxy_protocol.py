"""The PROXY protocol's header, versions 1 and 2, from its bytes: who the client behind a load balancer is.

Rules of HAProxy's proxy-protocol.txt (2020/03/05), named where they act:
 P1  version 1 is one line of at most 107 octets with CR LF (2.1): "PROXY" SP "TCP4" or "TCP6", two addresses and
     two ports, each after one SP; or "PROXY UNKNOWN" and anything
 P2  version 2 begins with a signature of 12 octets, then version and command, family, and the length of the rest in
     16 bits (2.2). What follows the addresses (TLVs) is passed over
 P3  LOCAL (a health check of the proxy itself) and an unknown family say nothing: the connection's own addresses
     count
 P4  anything else is malformed; its sender is not to be trusted to be what it was configured as
"""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import Final

import msgspec

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"  # P2
V1_START: Final = b"PROXY "
MAX_V1: Final = 107  # P1: octets of the longest line, with CR LF
V2_FIXED: Final = 16  # P2: octets up to the length's end
# The rest of a version 2 header: 216 octets for the longest addresses (AF_UNIX) and, in the specification's own
# words, room for TLVs such as a TLS client's details. 2 KiB is several times what balancers send.
MAX_V2_REST: Final = 2048

_V1 = re.compile(rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f.:]{2,39}) ([0-9A-Fa-f.:]{2,39}) ([0-9]{1,5}) ([0-9]{1,5})\r\n")
_V2_HEAD = struct.Struct("!12sBBH")
_V2_PARTS: Final = {0x1: struct.Struct("!4s4sHH"), 0x2: struct.Struct("!16s16sHH")}  # AF_INET, AF_INET6
_UNIX: Final = 0x3
_UNIX_SIZE: Final = 216
_STREAM: Final = 0x1


class ProxyError(ValueError):
    """The bytes are no header of the PROXY protocol; the message says why."""


class Proxied(msgspec.Struct, frozen=True):
    """Who connected to the proxy, and to which address there. IPv4 in IPv6 is written as IPv4."""

    client: str
    client_port: int
    server: str
    server_port: int


def parse_v1(line: bytes) -> Proxied | None:
    """Read a whole version 1 line with its CR LF; None: it says nothing (P3). Raises ProxyError."""
    if len(line) > MAX_V1 or not line.endswith(b"\r\n"):
        raise ProxyError("the line does not end within 107 octets")
    if line.startswith((b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ")):
        return None  # P3: whatever follows is to be ignored
    found = _V1.fullmatch(line)
    if found is None:
        raise ProxyError("the line is not as version 1 has it")
    family, *rest = (part.decode("ascii") for part in found.groups())
    version = 4 if family == "TCP4" else 6
    try:
        client, server = (ipaddress.ip_address(text) for text in rest[:2])
    except ValueError:
        raise ProxyError("an address is none") from None
    if client.version != version or server.version != version:
        raise ProxyError("an address is of another family")
    return Proxied(_plain(client), _port(rest[2]), _plain(server), _port(rest[3]))


def v2_rest(head: bytes) -> int:
    """How many octets follow the first V2_FIXED of a version 2 header. Raises ProxyError."""
    if len(head) != V2_FIXED:
        raise ProxyError("the fixed part is cut off")
    signature, version_command, _, length = _V2_HEAD.unpack(head)
    if signature != SIGNATURE:
        raise ProxyError("neither version 1 nor version 2")
    if version_command >> 4 != 2 or version_command & 0xF > 1:
        raise ProxyError("a version or command that does not exist")
    if length > MAX_V2_REST:
        raise ProxyError(f"longer than {MAX_V2_REST} octets")
    return int(length)


def parse_v2(head: bytes, rest: bytes) -> Proxied | None:
    """Read a version 2 header, its fixed part and the rest; None: it says nothing (P3). Raises ProxyError."""
    if v2_rest(head) != len(rest):
        raise ProxyError("the header is cut off")
    _, version_command, family_protocol, _ = _V2_HEAD.unpack(head)
    family, protocol = family_protocol >> 4, family_protocol & 0xF
    if family > _UNIX or protocol > 2:
        raise ProxyError("a family or protocol that does not exist")
    if version_command & 0xF == 0:
        return None  # P3: LOCAL
    if family == 0 or protocol == 0:
        return None  # P3: UNSPEC
    if protocol != _STREAM:
        raise ProxyError("no stream")
    if family == _UNIX:
        if len(rest) < _UNIX_SIZE:
            raise ProxyError("the addresses are cut off")
        return None  # P3: a socket file is no address
    part = _V2_PARTS[family]
    if len(rest) < part.size:
        raise ProxyError("the addresses are cut off")
    client, server, client_port, server_port = part.unpack_from(rest)
    return Proxied(
        _plain(ipaddress.ip_address(client)), client_port, _plain(ipaddress.ip_address(server)), server_port
    )


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _port(text: str) -> int:
    if len(text) > 1 and text.startswith("0"):
        raise ProxyError("a port with a leading zero")  # P1: no leading zeroes
    number = int(text)
    if number > 65535:
        raise ProxyError("a port above 65535")
    return number
