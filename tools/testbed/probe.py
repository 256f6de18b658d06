"""An SMTP client that goes step by step and writes down what it saw: code, enhanced code, seconds."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from types import TracebackType
from typing import NamedTuple, Self

# Longer than any limit of ours: a server that never answers shows as such.
PATIENCE_SECONDS = 45.0


class Saw(NamedTuple):
    """One reply; `code` 0 when the connection ended or nothing came."""

    code: int
    enhanced: str
    text: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.code or 'no reply'} {self.enhanced}".strip() + f" ({self.seconds:.1f} s)"


class Probe:
    """One connection; `greeting` is what it began with. A context manager."""

    def __init__(self, port: int) -> None:
        begun = time.monotonic()
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self._stream = self._socket.makefile("rb")
        self.greeting = self._read(begun)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        self._socket.close()

    def say(self, line: str) -> Saw:
        """Send one command and return the reply to it."""
        return self.send(line.encode() + b"\r\n")

    def send(self, data: bytes) -> Saw:
        """Send bytes and return the next reply."""
        begun = time.monotonic()
        # What the server said before it closed is still to be read.
        with contextlib.suppress(OSError):
            self._socket.sendall(data)
        return self._read(begun)

    def write(self, data: bytes) -> None:
        """Send bytes that nothing answers."""
        self._socket.sendall(data)

    def until_data(self, recipient: str, token: str) -> Self:
        """Go up to the content and send it, all but the last dot."""
        self.until_recipient(recipient)
        assert (saw := self.say("DATA")).code == 354, saw
        self.write(content(token))
        return self

    def until_recipient(self, recipient: str) -> Self:
        self.until_sender()
        assert (saw := self.say(f"RCPT TO:<{recipient}>")).code == 250, saw
        return self

    def until_sender(self) -> Self:
        assert self.greeting.code == 220, self.greeting
        assert (saw := self.say("EHLO probe.example")).code == 250, saw
        assert (saw := self.say("MAIL FROM:<probe@probe.example>")).code == 250, saw
        return self

    def _read(self, begun: float) -> Saw:
        try:
            while True:
                line = self._stream.readline()
                if not line.endswith(b"\n"):
                    return Saw(0, "", "closed", time.monotonic() - begun)
                if line[3:4] != b"-":
                    break
        except OSError as error:
            return Saw(0, "", type(error).__name__, time.monotonic() - begun)
        text = line.decode().rstrip()
        found = re.match(r"(\d{3}) (\d\.\d{1,3}\.\d{1,3})?", text)
        assert found is not None, text
        return Saw(int(found[1]), found[2] or "", text, time.monotonic() - begun)


def content(token: str) -> bytes:
    """A short message with a token, without the last dot."""
    return b"Subject: probe\r\nX-Token: " + token.encode() + b"\r\n\r\nhello\r\n"


def send(port: int, recipient: str, token: str) -> Saw:
    """Send one message; the first reply that is no success, or the one to its end."""
    with Probe(port) as probe:
        steps = ["EHLO probe.example", "MAIL FROM:<probe@probe.example>", f"RCPT TO:<{recipient}>", "DATA"]
        if probe.greeting.code != 220:
            return probe.greeting
        for step in steps:
            if (saw := probe.say(step)).code not in (250, 354):
                return saw
        return probe.send(content(token) + b".\r\n")
