"""Removing what the embedded log no longer needs, in small steps between appends, so that it never grows for ever.

Work topics are trimmed below what every group has committed less a replay window; others lose records by age.
A deleted key's record is kept for a while, so that a follower that reads slowly still meets it.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from gatepost.backends.log_sqlite.stream import MAX_OFFSET, Stream
from gatepost.core.ports.log import Cleanup, TopicSpec

# Finished records that stay: a person may look at them, and a ledger of delivered ids may be shorter-lived.
REPLAY_WINDOW: Final = 1000
# Rows removed in one transaction; with pieces of bodies of 900 KB that is 60 MB, some ten milliseconds.
STEP: Final = 64
# Trimming in larger portions saves transactions.
TRIM_AT: Final = 256
# Kafka's delete.retention.ms.
_DELETED_MS: Final = 86_400_000
# Free pages (4 KiB) that stay in the file for the next records, and those given back in one step.
_FREE_PAGES: Final = 4096
_GIVE_BACK: Final = 1024
# About a batch of ordinary mail: with less room than this, the next batch would fail again.
_PROBE_BYTES: Final = 256 * 1024


def remove_below(connection: sqlite3.Connection, stream: Stream, before: int) -> int:
    """Remove at most STEP records below `before`; return the new start. Runs in a transaction of the writer."""
    rows = connection.execute(
        "SELECT id FROM records WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
        (stream.base, stream.base + before - 1, STEP),
    ).fetchall()
    start = before if len(rows) < STEP else rows[-1][0] - stream.base + 1
    connection.execute("DELETE FROM records WHERE id BETWEEN ? AND ?", (stream.base, stream.base + start - 1))
    connection.execute("UPDATE streams SET start = max(start, ?) WHERE number = ?", (start, stream.number))
    if stream.compacted:
        connection.execute("DELETE FROM latest WHERE stream = ? AND offset < ?", (stream.number, start))
    return start


def remove_older(connection: sqlite3.Connection, stream: Stream, before_ms: int) -> int:
    """Remove at most STEP records appended before `before_ms`; return the new start."""
    rows = connection.execute(
        "SELECT id, at FROM records WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
        (stream.base, stream.base | MAX_OFFSET, STEP),
    ).fetchall()
    start = stream.start
    for number, at in rows:
        if at >= before_ms:
            break
        start = number - stream.base + 1
    return remove_below(connection, stream, start) if start > stream.start else start


def remove_deleted(connection: sqlite3.Connection, stream: Stream, now_ms: int) -> bool:
    """Remove at most STEP records of deleted keys that are old enough; True when there may be more."""
    rows = connection.execute(
        "SELECT id, key FROM records WHERE id BETWEEN ? AND ? AND value IS NULL AND at < ? LIMIT ?",
        (stream.base, stream.base | MAX_OFFSET, now_ms - _DELETED_MS, STEP),
    ).fetchall()
    connection.executemany("DELETE FROM records WHERE id = ?", [(number,) for number, _ in rows])
    connection.executemany(
        "DELETE FROM latest WHERE stream = ? AND key = ? AND offset = ?",
        [(stream.number, key, number - stream.base) for number, key in rows],
    )
    if rows:
        # The last record may be among them: its offset must not be given out again.
        connection.execute(
            "UPDATE streams SET start = max(start, ?) WHERE number = ? AND NOT EXISTS "
            "(SELECT 1 FROM records WHERE id BETWEEN ? AND ?)",
            (stream.end, stream.number, stream.base, stream.base | MAX_OFFSET),
        )
    return len(rows) == STEP


def give_back(connection: sqlite3.Connection) -> bool:
    """Give free space back to the file system, a step of it; True when there is more."""
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    if free <= _FREE_PAGES:
        return False
    connection.execute(f"PRAGMA incremental_vacuum({_GIVE_BACK})").fetchall()
    return bool(free - _GIVE_BACK > _FREE_PAGES)


def trimmable(stream: Stream, spec: TopicSpec, committed: int | None) -> int:
    """Return the offset below which a work topic's records go; 0 when none (yet)."""
    if spec.cleanup is not Cleanup.TRIM or committed is None:
        return 0
    before = committed - REPLAY_WINDOW
    return before if before - stream.start >= TRIM_AT else 0


def expires_before(spec: TopicSpec, now_ms: int) -> int | None:
    """Return the time before which records have expired, or None for topics that keep theirs."""
    if spec.cleanup in (Cleanup.EXPIRE, Cleanup.COMPACT_EXPIRE) and spec.retention_ms > 0:
        return now_ms - spec.retention_ms
    return None


def try_writing(connection: sqlite3.Connection) -> None:
    """Write as much as a batch of messages may need. Raises sqlite3.Error while there is no room."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('probe', zeroblob(?))", (_PROBE_BYTES,))
