"""A server of asyncio's that ends in the midst of an accept leaves no socket open."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from testbed.accepting import accept_no_more


# The rounds of the loop after which the server ends: before, in and after those in which it accepts.
@pytest.mark.parametrize("rounds", range(6))
async def test_what_was_accepted_is_begun(rounds: int) -> None:
    """An open socket would warn when it is collected, and a warning is an error here."""
    begun = asyncio.Event()

    def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        begun.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        for _ in range(rounds):
            await asyncio.sleep(0)
        await accept_no_more(server.sockets)
        server.close()
        if rounds > 1:
            assert begun.is_set()
            client.settimeout(10)
            assert await asyncio.to_thread(client.recv, 1) == b""
    await asyncio.sleep(0)
    gc.collect()
