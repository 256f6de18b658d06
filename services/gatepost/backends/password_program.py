"""Passwords checked by a program with the checkpassword interface; everything else by the directory behind it.

The interface (D. J. Bernstein's checkpassword): the program reads "login NUL password NUL timestamp NUL" from file
descriptor 3, at most 512 bytes, and exits with 0 (right; after running its arguments), 1 (wrong), 2 (misused) or
111 (a temporary fault). It has no shell, no environment but PATH, nothing of ours open, and a limited time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from gatepost.core.address import Address
from gatepost.core.manifest.quantities import seconds
from gatepost.core.manifest.settings import PasswordProgram
from gatepost.core.ports.directory import Account, Directory, DirectoryUnavailable, Entry, Login, LoginVerdict

MOST_BYTES: Final = 512  # the interface's own limit; a program may read no more
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

KILL_LIMIT_S: Final = 2.0  # what was killed ends at once, unless its disk hangs

RIGHT: Final = 0
WRONG: Final = 1

_DATA: Final = 3  # the descriptor that the interface names

_log = structlog.get_logger("gatepost.directory")


class ProgramDirectory:
    """core.ports.directory.Directory that asks a program about passwords."""

    def __init__(self, inner: Directory, settings: PasswordProgram) -> None:
        self._inner = inner
        self._command = settings.command
        self._limit = seconds(settings.timeout)
        self._threads = ThreadPoolExecutor(settings.concurrent, thread_name_prefix="password-program")
        self._places = asyncio.Semaphore(settings.concurrent)

    async def start(self) -> None:
        """Start the directory behind it. Raises what that raises."""
        if not os.access(self._command[0], os.X_OK):
            _log.error(
                "password_program_missing", command=self._command[0], advice="logins get 454 until it is there"
            )
        await self._inner.start()

    async def close(self) -> None:
        await self._inner.close()
        self._threads.shutdown(wait=False)

    async def lookup(self, address: Address) -> Entry | None:
        return await self._inner.lookup(address)

    async def expand(self, group: Entry) -> Sequence[Entry]:
        return await self._inner.expand(group)

    async def account(self, login: str) -> Account | None:
        """The account without its secrets: what the program decides about is not checked past it."""
        found = await self._inner.account(login)
        return None if found is None else Account(found.entry)

    async def authenticate(self, login: str, password: str) -> Login:
        data = _data(login, password)
        if data is None:
            return Login(LoginVerdict.REFUSED)
        account = await self._inner.account(login)
        # It is also run for a login that the directory does not know, which takes as long then.
        right = await self._ask(data)
        if account is None or not right:
            return Login(LoginVerdict.REFUSED)
        if not account.entry.enabled:
            return Login(LoginVerdict.ACCOUNT_DISABLED)
        if not account.entry.login_enabled:
            return Login(LoginVerdict.LOGIN_DISABLED)
        return Login(LoginVerdict.ACCEPTED, account.entry)

    async def _ask(self, data: bytes) -> bool:
        """Run the program. Raises DirectoryUnavailable."""
        try:
            async with asyncio.timeout(self._limit), self._places:
                code = await self._run(data)
        except TimeoutError:
            _log.error("password_program_slow", command=self._command[0], limit=self._limit)
            raise DirectoryUnavailable("the password program did not end in time") from None
        except OSError as error:
            _log.error("password_program_missing", command=self._command[0], reason=error.strerror)
            raise DirectoryUnavailable("the password program cannot be run") from None
        if code not in (RIGHT, WRONG):
            # 111 is its own temporary fault, 2 a misuse, a negative one the signal that ended it.
            _log.error("password_program_failed", command=self._command[0], code=code)
            raise DirectoryUnavailable(f"the password program ended with {code}")
        return code == RIGHT

    async def _run(self, data: bytes) -> int:
        """Return the exit code; kill the program with its children when nobody waits for it any more."""
        pid = _spawn(self._command, data)
        waiting = asyncio.get_running_loop().run_in_executor(self._threads, _exit_code, pid)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            # Not reaped yet, so the id is still its own; the thread ends with it.
            if not waiting.done():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                await asyncio.wait([waiting], timeout=KILL_LIMIT_S)
            raise


def _data(login: str, password: str) -> bytes | None:
    """What the program reads; None for what it could misread or must not be asked (an empty password)."""
    if not login or not password or "\0" in login or "\0" in password:
        return None
    data = b"\0".join((*(text.encode("utf-8", "surrogateescape") for text in (login, password)), b"", b""))
    return data if len(data) <= MOST_BYTES else None


def _spawn(command: Sequence[str], data: bytes) -> int:
    """Start it in a process group of its own. Raises OSError."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(writing, data)  # far less than a pipe holds
        return os.posix_spawn(
            command[0],
            list(command),
            {"PATH": PATH},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, reading, _DATA),
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM),
        )
    finally:
        os.close(reading)
        os.close(writing)


def _exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
