"""The end of a server of asyncio's, without a connection that stays open.

A server that is closed cannot begin what it has accepted already (its Server._attach fails, and nobody is told):
the socket stays open until garbage is collected, which warns in the midst of some later test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

# A connection is taken from the kernel, its task makes the transport, and that tells its protocol.
_ROUNDS = 3


class _Socket(Protocol):
    def fileno(self) -> int: ...


async def accept_no_more(sockets: Iterable[_Socket]) -> None:
    """Accept no more on these sockets of servers of the running loop, and begin what was accepted before."""
    loop = asyncio.get_running_loop()
    for sock in sockets:
        if sock.fileno() >= 0:
            loop.remove_reader(sock.fileno())
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)
