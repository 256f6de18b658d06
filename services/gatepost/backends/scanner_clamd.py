"""clamd by INSTREAM: one connection for each message, which is sent in chunks with their lengths.

    z INSTREAM NUL, then for each chunk its length in four octets (network order) and its octets; 0 ends it. The
    reply ends with NUL: "stream: OK", "stream: NAME FOUND", or a text with ERROR. clamd answers before the end, and
    closes, once it will take no more (StreamMaxLength), so its reply is waited for from the beginning; should a
    write fail first, its words are lost.

Source: clamd(8), COMMANDS, and its clamd.conf(5).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from gatepost.core.endpoints import parse_endpoint
from gatepost.core.ports.scanner import Advice, ScannerRefused, ScannerUnavailable, ScanResult

# s; also of a machine that drops our packets. The caller's limit for a whole scan may be shorter.
CONNECT_LIMIT: Final = 10.0
# One line with a signature's name.
MAX_REPLY: Final = 4096
MAX_CHUNK: Final = 2**20  # the length has four octets; clamd has a buffer for as much as comes

_OK: Final = "stream: OK"


async def scan(address: str, pieces: AsyncIterator[bytes]) -> ScanResult:
    """Scan a message at tcp://HOST:PORT or unix:/PATH. Raises ScannerUnavailable, ScannerRefused."""
    try:
        async with asyncio.timeout(CONNECT_LIMIT):
            reader, writer = await _connect(address)
    except (OSError, TimeoutError) as error:
        raise ScannerUnavailable(f"clamd at {address}: {error or 'no connection in time'}") from None
    sending = asyncio.create_task(_send(writer, pieces))
    try:
        reply = await _reply(reader, address)
        return read_reply(reply, address)
    finally:
        writer.transport.abort()  # first, for a second cancellation may come at the next await
        sending.cancel()
        await asyncio.wait({sending})
        if not sending.cancelled():
            sending.exception()  # a connection that breaks is told by what could not be read


async def _connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"), limit=MAX_REPLY)
    return await asyncio.open_connection(*parse_endpoint(address.removeprefix("tcp://")), limit=MAX_REPLY)


async def _send(writer: asyncio.StreamWriter, pieces: AsyncIterator[bytes]) -> None:
    writer.write(b"zINSTREAM\0")
    with contextlib.suppress(ConnectionError):  # it has answered, or _reply() tells
        async for piece in pieces:
            for start in range(0, len(piece), MAX_CHUNK):
                chunk = piece[start : start + MAX_CHUNK]
                writer.write(len(chunk).to_bytes(4) + chunk)
                await writer.drain()
        writer.write(bytes(4))
        await writer.drain()


async def _reply(reader: asyncio.StreamReader, address: str) -> str:
    try:
        line = await reader.readuntil(b"\0")
    except asyncio.LimitOverrunError:
        raise ScannerUnavailable(f"clamd at {address}: an endless reply") from None
    except (OSError, EOFError) as error:
        raise ScannerUnavailable(f"clamd at {address}: no reply ({type(error).__name__})") from None
    return line[:-1].decode("utf-8", "replace").strip()


def read_reply(reply: str, address: str) -> ScanResult:
    """Read what clamd says, without its NUL. Raises ScannerUnavailable, ScannerRefused."""
    if reply == _OK:
        return ScanResult(Advice.NO_ACTION)
    if reply.startswith("stream: ") and reply.endswith(" FOUND"):
        return ScanResult(Advice.FOUND, (reply[len("stream: ") : -len(" FOUND")],))
    if reply.endswith("ERROR"):
        raise ScannerRefused(f"clamd at {address}: {reply[:200]}")
    raise ScannerUnavailable(f"clamd at {address}: it said {reply[:200]!r}")
