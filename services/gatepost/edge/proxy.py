"""Reads the PROXY header off a connection that was just accepted: exactly its bytes, and not one of what follows.

What follows is the client's: its TLS handshake, or what it said before the greeting. So the length is read first
(version 2), or the line is looked at before it is taken (version 1).
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from gatepost.core.proxy_protocol import (
    MAX_V1,
    SIGNATURE,
    V1_START,
    V2_FIXED,
    Proxied,
    ProxyError,
    parse_v1,
    parse_v2,
    v2_rest,
)

# A balancer sends it at once with the connection; the specification asks for at least 3 s (a lost first segment).
HEADER_TIMEOUT: Final = 5.0


class NoHeader(Exception):
    """The connection was closed before its first byte: a check whether the port is open."""


async def read_header(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> Proxied | None:
    """Take the header; None: it says nothing of the client. Raises ProxyError, NoHeader, OSError, TimeoutError."""
    async with asyncio.timeout(HEADER_TIMEOUT):
        start = await loop.sock_recv(sock, len(SIGNATURE))  # shorter than any whole header
        if not start:
            raise NoHeader
        start = await _exactly(loop, sock, len(SIGNATURE), start)
        if start == SIGNATURE:
            head = await _exactly(loop, sock, V2_FIXED, start)
            return parse_v2(head, await _exactly(loop, sock, v2_rest(head)))
        if start.startswith(V1_START):
            return parse_v1(await _line(loop, sock, start))
    raise ProxyError("neither version 1 nor version 2")


async def _exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int, start: bytes = b"") -> bytes:
    """Read on until there are `size` octets."""
    data = start
    while len(data) < size:
        piece = await loop.sock_recv(sock, size - len(data))
        if not piece:
            raise ProxyError("the header is cut off")
        data += piece
    return data


async def _line(loop: asyncio.AbstractEventLoop, sock: socket.socket, start: bytes) -> bytes:
    """Read on to the line's CR LF and no further."""
    line = start
    while not line.endswith(b"\r\n"):
        if len(line) >= MAX_V1:
            raise ProxyError("the line does not end within 107 octets")
        await _readable(loop, sock)
        seen = sock.recv(MAX_V1 - len(line), socket.MSG_PEEK)
        if not seen:
            raise ProxyError("the header is cut off")
        # A line feed ends it in any case: parse_v1 judges the whole.
        end = seen.find(b"\n")
        line += sock.recv(end + 1 if end >= 0 else len(seen))
        if end >= 0:
            break
    return line


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    """Wait until there is something to read, and take nothing."""
    there: asyncio.Future[None] = loop.create_future()

    def readable() -> None:
        if not there.done():
            there.set_result(None)

    loop.add_reader(sock, readable)
    try:
        await there
    finally:
        loop.remove_reader(sock)
