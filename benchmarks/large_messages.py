"""The rows of large messages: how long one takes and what others notice of it, and what a hundred at once need."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
import smtp_load
from process_tree import cpu_seconds, forget_peak, peak_mib, tree
from systems import System

LARGE: Final = 25 * 2**20
MANY_SIZE: Final = 24 * 2**20
PROBE_PAUSE_S: Final = 0.002
REPLY_LIMIT_S: Final = 300.0
AGAIN_S: Final = 1.0
ATTEMPTS: Final = 20


class OneLarge(msgspec.Struct, frozen=True):
    """One large message: how long it took, what it cost, and the longest wait of another session meanwhile."""

    seconds: float
    cpu_ms: float
    longest_wait_ms: float


class Prober:
    """A session that says NOOP all the time and notes how long the answers take; use as a context manager."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.waits: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def longest_ms(self) -> float:
        return max(self.waits) * 1000

    def _run(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), timeout=REPLY_LIMIT_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.recv(4096)
            connection.sendall(b"EHLO probe.example.org\r\n")
            connection.recv(4096)
            while not self._stop.wait(PROBE_PAUSE_S):
                asked = time.monotonic()
                connection.sendall(b"NOOP\r\n")
                connection.recv(4096)
                self.waits.append(time.monotonic() - asked)


def quiet_wait_ms(system: System, seconds: float = 2.0) -> float:
    """The longest wait of a session while nothing else goes on: what the machine itself makes it."""
    with Prober(system.port) as prober:
        time.sleep(seconds)
    return prober.longest_ms


def one_large(system: System) -> OneLarge:
    before = cpu_seconds(system.roles)
    with Prober(system.port) as prober:
        started = time.monotonic()
        smtp_load.send_one(system.port, LARGE, "bob")
        elapsed = time.monotonic() - started
    after = cpu_seconds(system.roles)
    cpu = sum(after[role] - before[role] for role in after)
    return OneLarge(elapsed, cpu * 1000, prober.longest_ms)


class ManyLarge(msgspec.Struct, frozen=True):
    """Many large messages at once. `deferred` counts 4xx answers, after which the client came again."""

    messages: int
    accepted: int
    refused: int
    deferred: dict[str, int]
    seconds: float
    peak_mib: float
    at_rest_mib: float


def many_large(port: int, pid: int, messages: int) -> ManyLarge:
    """Send them from as many sessions at the same moment; `pid` is the server's process."""
    (only,) = tree(pid)
    forget_peak(only)
    at_rest = peak_mib(only)
    outcome: Counter[str] = Counter()
    deferred: Counter[str] = Counter()
    started = time.monotonic()
    asyncio.run(_all(port, messages, outcome, deferred))
    elapsed = time.monotonic() - started
    return ManyLarge(
        messages, outcome["accepted"], outcome["refused"], dict(deferred), elapsed, peak_mib(only), at_rest
    )


async def _all(port: int, messages: int, outcome: Counter[str], deferred: Counter[str]) -> None:
    line = b"0123456789abcdef" * 4 + b"\r\n"
    block = line * (2**20 // len(line))
    content = [b"Subject: large\r\n\r\n", *[block] * (MANY_SIZE // len(block)), b".\r\n"]
    async with asyncio.TaskGroup() as tasks:
        for _ in range(messages):
            tasks.create_task(_until_settled(port, content, outcome, deferred))


async def _until_settled(
    port: int, content: Sequence[bytes], outcome: Counter[str], deferred: Counter[str]
) -> None:
    for _ in range(ATTEMPTS):
        try:
            reply = await _attempt(port, content)
        except (OSError, EOFError, TimeoutError) as error:
            reply = type(error).__name__
        if reply.startswith("250"):
            outcome["accepted"] += 1
            return
        if reply.startswith("5"):
            outcome["refused"] += 1
            return
        deferred[reply] += 1
        await asyncio.sleep(AGAIN_S)
    outcome["refused"] += 1


async def _attempt(port: int, content: Sequence[bytes]) -> str:
    """One try; the last reply's codes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        reply = await _reply(reader)
        if not reply.startswith("220"):
            return reply
        size = sum(map(len, content))
        for command in (
            "EHLO many.example.org",
            f"MAIL FROM:<s@example.org> SIZE={size}",
            "RCPT TO:<bob@example.test>",
        ):
            writer.write(f"{command}\r\n".encode())
            reply = await _reply(reader)
            if not reply.startswith("2"):
                return reply
        writer.write(b"DATA\r\n")
        reply = await _reply(reader)
        if not reply.startswith("354"):
            return reply
        for piece in content:
            writer.write(piece)
            await writer.drain()
        return await _reply(reader)
    finally:
        writer.transport.abort()


async def _reply(reader: asyncio.StreamReader) -> str:
    async with asyncio.timeout(REPLY_LIMIT_S):
        while (line := await reader.readline())[3:4] == b"-":
            pass
    if not line.endswith(b"\r\n"):
        raise EOFError
    return " ".join(line.decode("ascii", "replace").split()[:2])
