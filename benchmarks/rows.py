"""The rows of small messages: CPU per message by role and messages per second, several systems in turn."""

from __future__ import annotations

import os
import secrets
import smtplib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import smtp_load
from smtp_load import DOMAIN, USERS
from systems import System

POLL_S: Final = 0.02
ARRIVAL_LIMIT_S: Final = 120.0
# Events and commits of the last messages are written up to so much later, and belong to them.
SETTLE_S: Final = 0.5
# With all fields that a server would add otherwise, a line that begins with a dot, and an empty one at the end.
PROOF: Final = (
    b"From: sender@example.org\r\nTo: alice@example.test\r\nDate: Sun, 1 Feb 2026 12:00:00 +0000\r\n"
    b"Message-ID: <proof@example.org>\r\nSubject: %s\r\n\r\n%s\r\n.one dot\r\n\r\n"
)


class Sample(msgspec.Struct, frozen=True):
    """One run: microseconds of CPU per message by role, and messages per second, until delivered if that counts."""

    us: dict[str, float]
    per_second: float
    messages: int = 0

    @property
    def total(self) -> float:
        return sum(self.us.values())


class Row(msgspec.Struct):
    """One row: the samples of each system, round by round."""

    what: str
    per_connection: int
    deliver: bool
    samples: dict[str, list[Sample]] = {}


def measure(
    system: System, messages: int, per_connection: int, *, deliver: bool, content: Path | None = None
) -> Sample:
    """Send so many messages and wait until they are durable, or with `deliver` in the mailboxes."""
    already = system.delivered()
    os.sync()  # what others have left to write is not this one's
    before = system.cpu()
    started = time.monotonic()
    sent = smtp_load.send(system.port, messages, per_connection, content)
    if deliver:
        _await(system, already + sent)
    elapsed = time.monotonic() - started
    time.sleep(SETTLE_S)
    after = system.cpu()
    return Sample({role: (after[role] - before[role]) / sent * 1e6 for role in after}, sent / elapsed, sent)


def _await(system: System, count: int) -> None:
    deadline = time.monotonic() + ARRIVAL_LIMIT_S
    while (arrived := system.delivered()) != count:
        if arrived > count or time.monotonic() > deadline:
            raise RuntimeError(f"{system.name}: {arrived} of {count} messages were delivered")
        time.sleep(POLL_S)


def prove(system: System) -> None:
    """Try the path that is going to be measured: a message arrives byte for byte, an unknown recipient gets 550.

    Raises RuntimeError when the system does not do what the others do.
    """
    already = system.delivered()
    content = PROOF % (secrets.token_hex(16).encode(), bytes(range(32, 127)))
    with smtplib.SMTP("127.0.0.1", system.port, timeout=ARRIVAL_LIMIT_S) as client:
        refused = client.sendmail("sender@example.org", [f"{USERS[0]}@{DOMAIN}", f"nobody@{DOMAIN}"], content)
    if [reply[0] for reply in refused.values()] != [550]:
        raise RuntimeError(f"{system.name} does not verify recipients: {refused}")
    _await(system, already + 1)
    if not system.holds(USERS[0], content):
        raise RuntimeError(f"{system.name}: the message that was sent is not the one in the mailbox")


def in_turn(
    row: Row,
    systems: Sequence[System],
    rounds: int,
    messages: Mapping[str, int],
    say: Callable[[str], None],
    content: Path | None = None,
) -> Row:
    """Fill a row: every round each system once, in an order that changes."""
    row.samples = {system.name: [] for system in systems}
    for number in range(rounds):
        order = systems if number % 2 == 0 else list(reversed(systems))
        for system in order:
            count = messages[system.name]
            sample = measure(system, count, row.per_connection, deliver=row.deliver, content=content)
            row.samples[system.name].append(sample)
            roles = ", ".join(f"{role} {us:.0f}" for role, us in sample.us.items())
            say(f"  {system.name:<16} {sample.total:7.0f} us ({roles})  {sample.per_second:6.0f}/s")
    return row
