"""Ports on 127.0.0.1 that no other test process takes between choosing and binding them.

Binding port 0 and closing the socket again lets a second process get the same port, and outgoing connections of any
program use the kernel's ephemeral range. So ports are taken from below that range, and a reservation is a record
lock on one byte (the port's number) of one file: the kernel drops it with the process, however that ends.
"""

import contextlib
import fcntl
import os
import random
import socket
import stat
import threading
from pathlib import Path

FIRST, LAST = 20_000, 32_000

# One for all users of the machine, whatever their TMPDIR is.
_LOCK_FILE = Path("/tmp/gatepost-testbed-ports")  # noqa: S108
_guard = threading.Lock()
# Record locks don't conflict inside one process, so it needs its own memory.
_mine: set[int] = set()
_handles: dict[int, int] = {}


def reserve() -> int:
    """A port that nobody uses for TCP or UDP, ours until `release` or the end of this process.

    Raises OSError when no port between FIRST and LAST is free.
    """
    with _guard:
        handle = _lock_file()
        start = random.SystemRandom().randrange(FIRST, LAST)
        candidates: list[int] = [*range(start, LAST), *range(FIRST, start)]
        for port in candidates:
            if port in _mine or not _locked(handle, port):
                continue
            if _unused(port):
                _mine.add(port)
                return port
            fcntl.lockf(handle, fcntl.LOCK_UN, 1, port)
    raise OSError(f"no free port between {FIRST} and {LAST} on 127.0.0.1")


def release(port: int) -> None:
    """Gives a reserved port back; a port that isn't reserved here is left alone."""
    with _guard:
        if port in _mine:
            _mine.remove(port)
            fcntl.lockf(_lock_file(), fcntl.LOCK_UN, 1, port)


def _lock_file() -> int:
    """The descriptor of the file that holds the locks, one for each process."""
    # By process: closing any descriptor of the file drops a process's locks, and a forked child has none.
    pid = os.getpid()
    if pid not in _handles:
        _mine.clear()
        handle = os.open(_LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        if stat.S_IMODE(os.fstat(handle).st_mode) != 0o666:
            # Another user's tests must be able to lock it too, whatever our umask is.
            with contextlib.suppress(PermissionError):
                os.fchmod(handle, 0o666)
        _handles[pid] = handle
    return _handles[pid]


def _locked(handle: int, port: int) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _unused(port: int) -> bool:
    # The wildcard address, so that a server of somebody else on all addresses is seen as well.
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                return False
    return True
