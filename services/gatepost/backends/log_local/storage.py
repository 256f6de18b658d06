"""What the readers of a log within one process need from its storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gatepost.core.completion import Commit
from gatepost.core.ports.log import Record, TopicSpec

# The most that one fetch gives: enough to keep a service busy, little enough to keep it responsive.
FETCH_RECORDS = 500
FETCH_BYTES = 8 * 1024 * 1024


class Readable(Protocol):
    """What a follower needs. Positions are known without I/O; `end` is the offset that the next record will get."""

    def topic(self, name: str) -> TopicSpec:
        """Raises LogMisconfigured when there is no such topic, LogUnavailable when the log is not open."""

    @property
    def available(self) -> bool: ...

    def start_of(self, topic: str, partition: int) -> int: ...

    def end_of(self, topic: str, partition: int) -> int: ...

    def recent(self, topic: str, partition: int, offset: int, most: int) -> Sequence[Record] | None:
        """Return records from `offset` on if they are in memory, else None."""

    async def stored(self, topic: str, partition: int, offset: int, most: int) -> Sequence[Record]:
        """Return at most `most` records from `offset` on, none at the end. Raises LogUnavailable."""

    async def first_since(self, topic: str, partition: int, since_ms: int) -> int:
        """Return the offset of the first record appended at or after `since_ms`, or the end."""

    def watch(self, topic: str, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the topic gets records or the log comes back."""

    def unwatch(self, topic: str, callback: Callable[[], None]) -> None: ...


class Storage(Readable, Protocol):
    """What a consumer needs besides: where its group is."""

    async def load_commits(self, topic: str, group: str) -> Mapping[int, Commit]: ...

    async def save_commits(self, topic: str, group: str, commits: Mapping[int, Commit]) -> None:
        """Store commits; they may be lost in a crash as long as later appends are lost too."""
