"""Which records of a partition are finished: what may be committed when they finish out of order.

A consumer works on many records at once. What it commits is the lowest unfinished offset (the position) and,
beside it, the finished offsets above it, as text for the commit's metadata:

    metadata = "1:" [ number *( "," number ) ]

The numbers are in base 36 and are lengths of runs, beginning at the position: unfinished, finished,
unfinished, finished ... A run of finished offsets is always the last one; after it everything is unfinished.

Only unfinished offsets are kept in memory, so one slow record among millions of finished ones costs nothing.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

# Kafka's offset.metadata.max.bytes: with one more character the commit is refused.
MAX_METADATA: Final = 4096

_VERSION: Final = "1:"
_METADATA = re.compile(r"1:(?:[0-9a-z]{1,12}(?:,[0-9a-z]{1,12})*)?", re.ASCII)
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class Commit(msgspec.Struct, frozen=True):
    """What a group has committed for one partition: the lowest unfinished offset and the metadata above."""

    position: int
    metadata: str = ""


class Completion:
    """The bookkeeping of one partition for one owner. Offsets are taken in rising order, finished in any."""

    def __init__(self, commit: Commit) -> None:
        self._out: OrderedDict[int, None] = OrderedDict()
        self._next = commit.position
        # Finished before this owner came, in rising order; those below _next are forgotten.
        self._before = list(finished_ranges(commit))
        self._changes = 0

    @property
    def next(self) -> int:
        """The lowest offset that was not taken yet: where to read on."""
        return self._next

    @property
    def position(self) -> int:
        """The lowest unfinished offset: what may be committed."""
        return next(iter(self._out), self._next)

    @property
    def outstanding(self) -> int:
        """How many offsets were taken and are not finished."""
        return len(self._out)

    @property
    def changes(self) -> int:
        """A number that differs whenever commit() may give something else than before."""
        return self._changes

    def take(self, offset: int) -> bool:
        """Note that `offset` was read. True when it is to be worked on, False when it is finished already.

        Offsets that were passed over since the last call (a log may have holes) count as finished. Raises
        ValueError for an offset that was taken before.
        """
        if offset < self._next:
            raise ValueError(f"offset {offset} was taken before {self._next}")
        self._next = offset + 1
        self._changes += 1
        while self._before and self._before[0].stop <= offset:
            del self._before[0]
        if self._before and offset in self._before[0]:
            return False
        self._out[offset] = None
        return True

    def finish(self, offset: int) -> bool:
        """Note that `offset` is done. False when it was not outstanding: finished before, or never taken."""
        if offset not in self._out:
            return False
        del self._out[offset]
        self._changes += 1
        return True

    def commit(self, limit: int = MAX_METADATA) -> Commit:
        """Return what to commit, with metadata of at most `limit` characters.

        What does not fit is left out from the end: those finished records would come again.
        """
        position = self.position
        return Commit(position, _encode(position, self._finished_above(), limit))

    def _finished_above(self) -> Iterator[range]:
        unfinished = iter(self._out)
        last = next(unfinished, None)
        if last is not None:
            for offset in unfinished:
                if offset > last + 1:
                    yield range(last + 1, offset)
                last = offset
            if self._next > last + 1:
                yield range(last + 1, self._next)
        for before in self._before:
            if before.stop > self._next:
                yield range(max(before.start, self._next), before.stop)


def finished_ranges(commit: Commit) -> Sequence[range]:
    """Return the finished offsets above a commit's position, in rising order.

    Metadata of another program, or of a later version of this one, means none: then records come again,
    which is safe, where guessing is not.
    """
    if _METADATA.fullmatch(commit.metadata) is None:
        return ()
    ranges = []
    offset = commit.position
    for index, text in enumerate(commit.metadata[len(_VERSION) :].split(",")):
        if not text:
            break
        length = int(text, 36)
        if index % 2 and length:
            ranges.append(range(offset, offset + length))
        offset += length
    return ranges


def _encode(position: int, finished: Iterable[range], limit: int) -> str:
    parts: list[str] = []
    room = limit - len(_VERSION)
    offset = position
    pending: range | None = None

    def write(run: range) -> bool:
        nonlocal room, offset
        text = f"{_base36(run.start - offset)},{_base36(len(run))}"
        room -= len(text) + bool(parts)
        if room < 0:
            return False
        parts.append(text)
        offset = run.stop
        return True

    for run in finished:
        if pending is not None and run.start <= pending.stop:
            pending = range(pending.start, max(pending.stop, run.stop))
            continue
        if pending is not None and not write(pending):
            return _VERSION + ",".join(parts)
        pending = run
    if pending is not None:
        write(pending)
    return _VERSION + ",".join(parts) if parts else ""


def _base36(number: int) -> str:
    if number < 36:
        return _DIGITS[number]
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text
