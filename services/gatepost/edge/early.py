"""Did the client speak before the greeting? One system call, no waiting (RFC 5321 3.1: the server speaks first)."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from typing import Final

_ZERO: Final = struct.pack("i", 0)


def spoke_first(transport: asyncio.Transport) -> bool:
    """Whether input of the client is waiting on a plain connection that was just made."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return False
    try:
        return fcntl.ioctl(sock.fileno(), termios.FIONREAD, _ZERO) != _ZERO
    except OSError:
        return False  # the client is gone already
