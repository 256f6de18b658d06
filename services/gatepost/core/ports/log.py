"""The log: durable, partitioned, append-only topics; everything between two processes goes through it.

Implemented by backends/log_memory (a fake for tests), backends/log_sqlite (one machine) and backends/log_kafka. One
contract suite (tests/contracts/log) runs over all of them; docs/guarantees.md states what it must hold.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

import msgspec

from gatepost.core.completion import Commit

Headers = tuple[tuple[str, bytes], ...]


class LogError(Exception):
    """The log did not do what was asked; the message is for logs and operators, never for an SMTP client."""


class LogUnavailable(LogError):
    """The log cannot be reached or refused; it is certain that nothing was and nothing will be written."""


class LogUnknown(LogError):
    """An append did not end within its limit, or broke: it may be written already, later, or never.

    `outcome` can be awaited, by several and with any limit, for what became of it: a Position; LogUnavailable
    when it is certain by now that it never will be written; LogUnknown when that cannot be found out any more
    (the log was closed, or the broker lost track of it). For append_many it is about the entries together.
    """

    def __init__(self, message: str, outcome: Awaitable[Position]) -> None:
        super().__init__(message)
        self.outcome = outcome


class LogGap(LogError):
    """A record that was to be read is no longer there. An alarm: a reader never skips over a gap."""


class LogMisconfigured(LogError):
    """Topics are missing or have settings that break a guarantee; the message names each, with what to set."""


class Position(NamedTuple):
    partition: int
    offset: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record as read. `timestamp_ms` is when it was appended, in ms since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: Headers = ()

    def header(self, name: str) -> bytes | None:
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One record to append. `partition` None: by the hash of the key, or any where there is no key."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int | None = None


class Cleanup(Enum):
    """What may remove a topic's records."""

    TRIM = "trim"  # only an explicit trim below what is committed: work topics
    EXPIRE = "expire"  # time
    COMPACT = "compact"  # a newer record with the key
    COMPACT_EXPIRE = "compact,expire"


class TopicSpec(msgspec.Struct, frozen=True):
    """What a topic must be. `retention_ms` only where cleanup has EXPIRE."""

    name: str
    cleanup: Cleanup
    partitions: int
    retention_ms: int = 0


class Consumer(Protocol):
    """A member of a group that reads one topic. Each record belongs to one live member at a time.

    Records are given once each in the order of their partition, and may be finished in any order. What is
    committed is the lowest unfinished offset of a partition with the finished ones above it, so after a crash
    only unfinished records come again (as long as the finished ones fit into the commit's metadata; beyond
    that, finished ones come again too: at least once). At most `window` records of a partition are out
    unfinished; then fetch gives no more of that partition.
    """

    async def start(self) -> None:
        """Join the group. Raises LogUnavailable when the log cannot be reached within its limit.

        Raises LogMisconfigured when there is no such topic.
        """

    async def fetch(self, limit: float) -> Sequence[Record]:
        """Return the next records of all partitions owned, or none when `limit` seconds passed without any.

        Raises LogGap when the committed position was trimmed away. While the log is away it returns none and
        goes on by itself when the log is back.
        """

    def finish(self, record: Record) -> None:
        """Say that all that this record asks is done and durable. Ignored when its partition was taken away."""

    def owns(self, partition: int) -> bool:
        """Whether records of this partition are this member's to finish at the moment."""

    async def commit(self) -> None:
        """Commit now what is finished (a background task also does this all the time).

        Raises LogUnavailable; what could not be committed is committed later if the partition is still owned.
        """

    async def close(self) -> None:
        """Commit, and leave the group at once, so that others take over without waiting for a time-out."""

    def on_revoked(self, callback: Callable[[frozenset[int]], None]) -> None:
        """Have `callback` called with the partitions that this member just lost."""


class Follower(Protocol):
    """Reads every record of a topic from its start, without a group: configuration, control, state, acks.

    What was removed by compaction or by time before it was read is passed over. While the log is away it gives
    nothing and goes on by itself when the log is back.
    """

    async def start(self) -> None:
        """Begin at the start of every partition. Raises LogUnavailable, LogMisconfigured (no such topic)."""

    async def fetch(self, limit: float) -> Sequence[Record]:
        """Return the next records, or none when `limit` seconds passed without any. A deleted key has value b"".

        Raises LogGap when the topic was deleted and made anew: then only a new follower sees what it holds now.
        """

    @property
    def caught_up(self) -> bool:
        """Whether everything that was in the topic when start() was called has been given."""

    async def close(self) -> None: ...


class Log(Protocol):
    """The log as a whole. All limits are in seconds."""

    async def start(self) -> None:
        """Connect or open. Raises LogUnavailable; may be called again then."""

    async def close(self) -> None:
        """Wait a short time for appends in flight, then close whatever happens."""

    @property
    def available(self) -> bool:
        """Whether the last contact succeeded: False makes an edge answer 421 instead of trying."""

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        """Create what is missing where that is allowed; check the settings of what is there.

        Returns warnings (for example a log on a single broker). Raises LogMisconfigured naming every topic
        that is missing and may not be created, or whose settings break a guarantee; LogUnavailable.
        """

    async def instance_id(self) -> str:
        """The id that tells this log from another at the same address."""

    async def append(self, entry: Entry, limit: float) -> Position:
        """Append durably. Raises LogUnavailable or LogUnknown. A cancelled call may still be written."""

    async def append_many(self, entries: Sequence[Entry], limit: float) -> Sequence[Position]:
        """Append all, in any order, and return when all are durable.

        Raises LogUnavailable when none was written, LogUnknown when some may be.
        """

    async def read(self, topic: str, partition: int, offsets: Sequence[int], limit: float) -> Sequence[Record]:
        """Read these offsets. Raises LogGap when one is gone, LogUnavailable."""

    async def trim(self, topic: str, partition: int, before: int) -> None:
        """Remove the records below offset `before`. Raises LogUnavailable."""

    async def committed(self, topic: str, group: str) -> dict[int, int]:
        """Return the committed position (lowest unfinished offset) of each partition of a group."""

    async def commits(self, topic: str, group: str) -> Mapping[int, Commit]:
        """Return what a group has committed for each partition, with what is finished above the position."""

    async def ends(self, topic: str) -> Mapping[int, range]:
        """Return for each partition the offsets that it holds: of its first record, and behind its last one.

        Raises LogMisconfigured (no such topic), LogUnavailable.
        """

    async def save_commits(self, topic: str, group: str, commits: Mapping[int, Commit]) -> None:
        """Set where a group without members reads on: an administrator's way out. Raises LogUnavailable."""

    async def first_since(self, topic: str, partition: int, since_ms: int) -> int:
        """Return the offset of the first record appended at or after `since_ms`, or that behind the last one."""

    def consumer(self, topic: str, group: str, *, window: int) -> Consumer: ...

    def follower(self, topic: str, *, since_ms: int | None = None) -> Follower:
        """Read a topic from its start, or from the first record of each partition appended since `since_ms`."""
