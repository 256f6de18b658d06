"""The same load for every server: Debian's smtp-source, 20 sessions, 4 KB messages, five mailboxes in turn."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

SMTP_SOURCE: Final = "/usr/sbin/smtp-source"
USERS: Final = ("alice", "bob", "carol", "erin", "frank")
DOMAIN: Final = "example.test"
SESSIONS: Final = 20
MESSAGE_BYTES: Final = 4096
LIMIT_S: Final = 300


class LoadFailed(Exception):
    """The server did not take every message."""


def send(port: int, messages: int, per_connection: int, content: Path | None = None) -> int:
    """Send about `messages` in SESSIONS sessions and return how many; all were answered with 250.

    One smtp-source for each mailbox, side by side. With several messages per connection each of them starts
    anew whenever its sessions have sent so many. `content` is a file with the message, else it is filler.
    """
    sessions = SESSIONS // len(USERS)
    if per_connection == 1:
        waves, wave = 1, messages // len(USERS)
        words: list[str] = []
    else:
        wave = sessions * per_connection
        waves = max(1, round(messages / len(USERS) / wave))
        words = ["-d"]

    what = ["-l", str(MESSAGE_BYTES)] if content is None else ["-F", str(content)]

    def mailbox(user: str) -> None:
        for _ in range(waves):
            _run(port, *words, "-s", str(sessions), "-m", str(wave), *what, to=user)

    with ThreadPoolExecutor(len(USERS)) as threads:
        list(threads.map(mailbox, USERS))
    return waves * wave * len(USERS)


def send_one(port: int, size: int, to: str) -> None:
    """Send one message of `size` bytes."""
    _run(port, "-s", "1", "-m", "1", "-l", str(size), to=to)


def _run(port: int, *words: str, to: str) -> None:
    done = subprocess.run(
        [
            *(SMTP_SOURCE, *words, "-M", "client.example.org"),
            *("-f", "sender@example.org", "-t", f"{to}@{DOMAIN}", f"127.0.0.1:{port}"),
        ],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode or done.stderr:
        raise LoadFailed(f"smtp-source ended with {done.returncode}: {done.stderr[-1000:]}")
