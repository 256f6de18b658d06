"""A load of SMTP clients that know exactly what was promised to them: which messages got 250, and which did not.

Every attempt is a new message with a token of its own. A token that got 250 must arrive; one that did not may.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path

REPLY_SECONDS = 60.0
AGAIN_SECONDS = 0.05
# How far back a rate looks: long enough for a mean, short enough to be of now.
RATE_SECONDS = 0.5
BUSY_SECONDS = 60.0
TOKEN_HEADER = b"X-Token: "


class Load:
    """`clients` senders in a thread of their own, each in a loop; use start(), then finish().

    `address_of` chooses the recipient for a message's number, `size_of` its size in bytes.
    """

    def __init__(
        self,
        ports: Sequence[int],
        *,
        clients: int,
        per_connection: int,
        address_of: Callable[[int], str],
        size_of: Callable[[int], int],
        most: int | None = None,
    ) -> None:
        self._ports, self._clients, self._per_connection, self._most = ports, clients, per_connection, most
        self._address_of, self._size_of = address_of, size_of
        self.promised: dict[str, str] = {}
        """Token -> recipient, of what got 250."""
        self.attempted: set[str] = set()
        self.refused: Counter[str] = Counter()
        self.in_flight = 0
        self._lately: deque[float] = deque()
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Let every client end its message, then return."""
        self._stop.set()
        self._thread.join(REPLY_SECONDS * 2)
        assert not self._thread.is_alive(), "the load did not end"

    def join(self) -> None:
        """Wait until `most` messages have been attempted."""
        self._thread.join()

    def rate(self) -> float:
        """Messages a second that got 250, over the last RATE_SECONDS."""
        since = time.monotonic() - RATE_SECONDS
        with contextlib.suppress(IndexError):
            while self._lately[0] < since:
                self._lately.popleft()
        return len(self._lately) / RATE_SECONDS

    def await_busy(
        self, in_flight: int, more: int, rate: float = 0.0, seconds: float = BUSY_SECONDS
    ) -> tuple[float, int]:
        """Return rate and messages in flight once `more` further messages got 250 and both are high enough.

        In flight is a message whose MAIL was sent and whose end was not answered yet.
        """
        goal = len(self.promised) + more
        deadline = time.monotonic() + seconds
        while True:
            now_rate, now_in_flight = self.rate(), self.in_flight
            if len(self.promised) >= goal and now_in_flight >= in_flight and now_rate >= rate:
                return now_rate, now_in_flight
            assert time.monotonic() < deadline, (
                f"after {seconds:.0f} s {len(self.promised)} of {goal} promised, {now_in_flight} of {in_flight} "
                f"in flight, {now_rate:.0f} of {rate:.0f} a second; refused: {self.refused}"
            )
            time.sleep(0.002)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._clients):
                tasks.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        turn = number
        while not self._stop.is_set():
            port = self._ports[turn % len(self._ports)]
            turn += 1
            try:
                if not await self._connection(port):
                    return
            except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError):
                await asyncio.sleep(AGAIN_SECONDS)

    async def _connection(self, port: int) -> bool:
        """One connection with its messages; False when there is nothing more to send."""
        reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), REPLY_SECONDS)
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                if (greeting := await _reply(reader)) != 220:
                    self.refused[f"{greeting} to the connection"] += 1
                    await asyncio.sleep(AGAIN_SECONDS)
                    return True
                writer.write(b"EHLO load.example\r\n")
                await _reply(reader)
            for _ in range(self._per_connection):
                if self._stop.is_set():
                    return True
                number = next(self._numbers)
                if self._most is not None and number >= self._most:
                    return False
                await self._message(reader, writer, number)
            writer.write(b"QUIT\r\n")
            return True
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _message(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        token, recipient = f"t{number}", self._address_of(number)
        self.attempted.add(token)
        writer.write(f"MAIL FROM:<load@load.example>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
        self.in_flight += 1
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                replies = [await _reply(reader) for _ in range(3)]
                if replies[2] == 354:
                    writer.write(_content(token, self._size_of(number)))
                    code = await _reply(reader)
                else:
                    code = next(reply for reply in replies if reply >= 400)
                    writer.write(b"RSET\r\n")
                    await _reply(reader)
        finally:
            self.in_flight -= 1
        if code == 250:
            self.promised[token] = recipient
            self._lately.append(time.monotonic())
        else:
            self.refused[str(code)] += 1
            await asyncio.sleep(AGAIN_SECONDS)


def _content(token: str, size: int) -> bytes:
    head = b"Subject: load\r\n" + TOKEN_HEADER + token.encode() + b"\r\n\r\n"
    line = b"0123456789abcdef" * 4 + b"\r\n"
    return head + line * max(1, (size - len(head)) // len(line)) + b".\r\n"


async def _reply(reader: asyncio.StreamReader) -> int:
    """Read one reply and return its code. Raises EOFError at the end of the connection."""
    while True:
        line = await reader.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError
        if line[3:4] == b" ":
            return int(line[:3])


def token_of(message: bytes) -> str:
    """The token in a message that arrived."""
    start = message.index(TOKEN_HEADER) + len(TOKEN_HEADER)
    return message[start : message.index(b"\r\n", start)].decode()


class Reader:
    """Takes mail out of every new/ below a store, as a mail user's program does, and counts tokens."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self.seen: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._stop.set()
        self._thread.join()
        self._sweep()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            self._sweep()

    def _sweep(self) -> None:
        for path in self._store.glob("*/new/*"):
            self.seen[token_of(path.read_bytes())] += 1
            path.unlink()
