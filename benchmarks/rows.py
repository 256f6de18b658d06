"""The rows of small messages: CPU per message by role and messages per second, several systems in turn."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
import smtp_load
from process_tree import cpu_seconds
from systems import System

POLL_S: Final = 0.02
ARRIVAL_LIMIT_S: Final = 120.0
# Events and commits of the last messages are written up to so much later, and belong to them.
SETTLE_S: Final = 0.5


class Sample(msgspec.Struct, frozen=True):
    """One run: microseconds of CPU per message by role, and messages per second, until delivered if that counts."""

    us: dict[str, float]
    per_second: float

    @property
    def total(self) -> float:
        return sum(self.us.values())


class Row(msgspec.Struct):
    """One row: the samples of each system, round by round."""

    what: str
    per_connection: int
    deliver: bool
    samples: dict[str, list[Sample]] = {}


def measure(system: System, messages: int, per_connection: int, *, deliver: bool) -> Sample:
    """Send so many messages and wait until they are durable, or with `deliver` in the mailboxes."""
    already = system.delivered()
    os.sync()  # what others have left to write is not this one's
    before = cpu_seconds(system.roles)
    started = time.monotonic()
    sent = smtp_load.send(system.port, messages, per_connection)
    if deliver:
        _await(system, already + sent)
    elapsed = time.monotonic() - started
    time.sleep(SETTLE_S)
    after = cpu_seconds(system.roles)
    return Sample({role: (after[role] - before[role]) / sent * 1e6 for role in after}, sent / elapsed)


def _await(system: System, count: int) -> None:
    deadline = time.monotonic() + ARRIVAL_LIMIT_S
    while (arrived := system.delivered()) != count:
        if arrived > count or time.monotonic() > deadline:
            raise RuntimeError(f"{system.name}: {arrived} of {count} messages were delivered")
        time.sleep(POLL_S)


def in_turn(
    row: Row, systems: Sequence[System], rounds: int, messages: Mapping[str, int], say: Callable[[str], None]
) -> Row:
    """Fill a row: every round each system once, in an order that changes."""
    row.samples = {system.name: [] for system in systems}
    for number in range(rounds):
        order = systems if number % 2 == 0 else list(reversed(systems))
        for system in order:
            sample = measure(system, messages[system.name], row.per_connection, deliver=row.deliver)
            row.samples[system.name].append(sample)
            roles = ", ".join(f"{role} {us:.0f}" for role, us in sample.us.items())
            say(f"  {system.name:<16} {sample.total:7.0f} us ({roles})  {sample.per_second:6.0f}/s")
    return row
