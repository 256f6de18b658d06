"""One partition as the event loop sees it: its ends, and its newest records in memory.

What was appended a moment ago is usually read a moment later by a consumer in this process; it then never has
to come from the disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from gatepost.core.ports.log import Record

# Bits of a row's id that hold the offset; the rest is the stream's number. 2^40 offsets last 11 years at
# 3,000 records a second.
OFFSET_BITS: Final = 40
MAX_OFFSET: Final = (1 << OFFSET_BITS) - 1

# Values above this are pieces of bodies or large messages: reading them from the disk costs little by comparison.
_LARGE: Final = 128 * 1024


class Stream:
    """`number` is its id in the file, `start` and `end` the offsets of its first and its next record.

    `compacted`: a new record removes an older one with the same key.
    """

    __slots__ = ("_tail", "_tail_start", "compacted", "end", "number", "partition", "start", "topic")

    def __init__(
        self, number: int, topic: str, partition: int, start: int, end: int, compacted: bool = False
    ) -> None:
        self.number = number
        self.topic = topic
        self.partition = partition
        self.start = start
        self.end = end
        self.compacted = compacted
        self._tail: dict[int, Record] = {}
        self._tail_start = end

    @property
    def base(self) -> int:
        """The row id of offset 0."""
        return self.number << OFFSET_BITS

    def recent(self, offset: int, most: int) -> Sequence[Record] | None:
        """Return records from `offset` on if that one is in memory."""
        if offset < self._tail_start:
            return None
        tail = self._tail
        return [tail[number] for number in range(offset, min(offset + most, self.end))]


class Tails:
    """The newest records of all streams, within one budget of bytes; the oldest go first."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._used = 0
        self._order: deque[tuple[Stream, int, int]] = deque()

    def keep(self, stream: Stream, record: Record) -> None:
        """Put a stream's next record into memory. The stream's end is moved by the caller, behind it."""
        size = len(record.value)
        if size > _LARGE:
            self.skip(stream, record.offset)
            return
        stream._tail[record.offset] = record
        self._order.append((stream, record.offset, size))
        self._used += size
        while self._used > self._budget:
            self._evict()

    @staticmethod
    def skip(stream: Stream, offset: int) -> None:
        """Note that a stream's next record, at `offset`, is not kept: a tail has no holes."""
        stream._tail.clear()
        stream._tail_start = offset + 1

    def _evict(self) -> None:
        stream, offset, size = self._order.popleft()
        self._used -= size
        if stream._tail.pop(offset, None) is not None:
            stream._tail_start = offset + 1
