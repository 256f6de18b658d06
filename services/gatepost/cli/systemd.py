"""Telling the service manager how it goes (sd_notify): a datagram to the socket in $NOTIFY_SOCKET."""

from __future__ import annotations

import contextlib
import os
import socket


def tell_service_manager(*assignments: str) -> bool:
    """Send `READY=1`, `STATUS=...`, `STOPPING=1` and the like; True when somebody was told. Never raises.

    Protocol: sd_notify(3). A name that begins with @ is in Linux' abstract name space.
    """
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return False
    address = "\0" + name[1:] if name.startswith("@") else name
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out,
    ):
        out.setblocking(False)
        out.sendto("\n".join(assignments).encode(), address)
        return True
    return False
