"""The machine's clock is set forward or back by an hour while everything runs.

What waits for an answer counts on the monotonic clock, which never jumps; what outlives a process (retry tiers, the
ledger of a store, ids, expiry) has to use the time of day, and bears a jump as these tests say.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gatepost
from gatepost.backends.store_maildir.ledger import Ledger
from gatepost.core.ids import derive_id, new_id, time_of
from gatepost.core.ports.transport import RemoteReply
from gatepost.core.retry import time_left
from gatepost.relay.site_gate import BREAK_AFTER, BREAK_MS, Site

HOUR_MS = 3_600_000
NOON = 1_700_000_000_000
TIME_OF_DAY = re.compile(r"\btime\.time(?:_ns)?\b|\bdatetime\.now\b|\bdatetime\.datetime\.now\b")
# Files that may ask for the time of day, and what for.
MAY_ASK = {
    "cli/assembly.py": "the one clock of all services: ids, Received fields, events, retry tiers, expiry",
    "cli/evidence.py": "when an archive was made",
    "cli/queue.py": "ages in a listing",
    "cli/quickstart.py": "the validity of a certificate",
    "backends/log_sqlite/log.py": "when a record was appended, and which ones expire",
    "backends/log_memory.py": "the same",
    "backends/store_maildir/store.py": "the ledger's files",
    "telemetry/logging.py": "the time in a log line",
    "telemetry/rotating_file.py": "the age of a log file",
}


def test_only_these_ask_for_the_time_of_day() -> None:
    """Fails when a deadline, a cache or a limit is counted on a clock that may jump."""
    root = Path(gatepost.__file__).parent
    asking = {str(path.relative_to(root)) for path in root.rglob("*.py") if TIME_OF_DAY.search(path.read_text())}
    assert asking <= set(MAY_ASK), f"these count on a clock that may jump: {asking - set(MAY_ASK)}"


@pytest.mark.parametrize(
    ("jump_ms", "left"),
    [
        (0, 60.0),
        (30_000, 30.0),
        (60_000, 0.0),
        (HOUR_MS, 0.0),  # forward: tried early
        (-1000, 60.0),
        (-HOUR_MS, 60.0),  # back: its own wait, not an hour more
    ],
)
def test_a_tier_never_waits_longer_than_its_name_says(jump_ms: int, left: float) -> None:
    assert time_left(NOON, NOON + jump_ms, 60) == left


def test_a_clock_that_is_set_back_does_not_keep_a_site_closed() -> None:
    site = Site(1)
    for _ in range(BREAK_AFTER):
        site.unreachable(RemoteReply(421, "4.4.1", "away"), NOON)
    assert site.broken(NOON) is not None
    assert site.broken(NOON + BREAK_MS - 1) is not None
    assert site.broken(NOON + BREAK_MS) is None
    assert site.broken(NOON - HOUR_MS) is None
    assert site.broken(NOON + HOUR_MS) is None


@pytest.mark.parametrize("jumps", [(HOUR_MS, -HOUR_MS), (-HOUR_MS, HOUR_MS), (-HOUR_MS, -HOUR_MS)])
def test_the_ledger_knows_what_was_delivered_on_either_side_of_a_jump(
    tmp_path: Path, jumps: tuple[int, ...]
) -> None:
    """Fails when a file of the ledger is named, ordered or forgotten by a clock that went back."""
    now = [NOON]
    delivered = []

    def opened() -> Ledger:
        ledger = Ledger(str(tmp_path), 48 * HOUR_MS, lambda: now[0])
        ledger.open()
        return ledger

    ledger = opened()
    for jump in (0, *jumps):
        now[0] += jump
        ledger.rotate()
        delivered.append(derive_id(new_id(now[0]), "ann@example.test", "store"))
        ledger.append(delivered[-1:])
        # A process that starts after the jump makes a file that must not stand before older ones.
        ledger.close()
        ledger = opened()
        assert all(one in ledger for one in delivered)
    assert new_id(now[0]) not in ledger
    ledger.close()


def test_ids_stay_apart_when_the_same_time_comes_again() -> None:
    ids = [new_id(NOON + jump) for jump in (0, HOUR_MS, 0, -HOUR_MS, 0)]
    assert len(set(ids)) == len(ids)
    assert [time_of(one) - NOON for one in ids] == [0, HOUR_MS, 0, -HOUR_MS, 0]
