"""One partition while a member of a group owns it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from gatepost.backends.log_kafka.reading import to_record
from gatepost.core.completion import Commit, Completion
from gatepost.core.ports.log import Record


class Share:
    """`completion` is None until its commit was read and the client was told where to read on.

    `gap` is what is wrong when the next record is no longer there.
    """

    def __init__(self, topic: str, partition: int) -> None:
        self._topic = topic
        self._partition = partition
        self.completion: Completion | None = None
        self.gap = ""
        self.gap_told = False
        self._committed = -1
        # Read by the client, but not given out yet: there was no room in the window.
        self._waiting: deque[Any] = deque()
        self.read_on = 0

    def begin(self, commit: Commit) -> None:
        self.completion = Completion(commit)
        self.read_on = commit.position

    def add(self, records: list[Any]) -> None:
        """Take in what the client has read."""
        if records:
            self._waiting.extend(records)
            self.read_on = records[-1].offset + 1

    @property
    def wants_more(self) -> bool:
        """Whether the client should be asked for more."""
        return self.completion is not None and not self._waiting and not self.gap

    def give(self, window: int, most: int) -> Iterator[Record]:
        """Give out what the window has room for, at most `most`."""
        completion = self.completion
        while completion is not None and self._waiting and most > 0 and completion.outstanding < window:
            record = self._waiting.popleft()
            if completion.take(record.offset):
                most -= 1
                yield to_record(self._topic, self._partition, record)

    def to_commit(self) -> tuple[int, Commit] | None:
        """Return what to commit and its number for `committed`, or None when nothing has changed."""
        if self.completion is None or self._committed == self.completion.changes:
            return None
        return self.completion.changes, self.completion.commit()

    def committed(self, changes: int) -> None:
        self._committed = changes
