"""When a record has been unfinished for too long, and what becomes of it: it must pin neither commit nor window.

One that waits for something outside goes to the end of its own topic, unchanged: the same ids come out of it. How
often it was moved stands in a header, and each time it waits longer before it moves again, so that an outage of
days over a long backlog costs few appends. One that our own fault keeps goes to quarantine after some tries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from gatepost.core.ports.log import Entry, Record

MOVED_HEADER: Final = "moved"
EVERYWHERE: Final = 20  # records failing at the same time, with none that succeeds: it is not the records


class Patience(msgspec.Struct, frozen=True):
    """How long a record may stay unfinished. In seconds."""

    waits_s: float = 600.0
    """For something outside, the first time; then the record moves to the end of its topic."""
    longest: int = 5
    """How many times this is added when it was moved before: at most an hour in all."""
    tries: int = 5
    """Handlings that fail by a fault of ours before the record goes to quarantine."""
    retry_s: float = 60.0
    """Between these: a moment's trouble (memory, a full disk) shall not quarantine mail."""
    hangs_s: float | None = 14_400.0
    """A handler that takes so long hangs: it is cancelled, which counts as a fault. No working step takes hours."""


def attempts_of(record: Record) -> int:
    """How often the record was moved to the end of its topic before."""
    value = record.header(MOVED_HEADER) or b""
    return int(value) if value.isdigit() and len(value) < 10 else 0


def appended_again(record: Record) -> Entry:
    """Return the record as it goes to the end of its topic: the same in all but the count."""
    headers = [(name, value) for name, value in record.headers if name != MOVED_HEADER]
    headers.append((MOVED_HEADER, b"%d" % (attempts_of(record) + 1)))
    return Entry(record.topic, record.value, record.key, tuple(headers))


class Faults:
    """Tells a fault of one record from a fault of everything: a bad release must not quarantine all mail."""

    def __init__(self) -> None:
        # Each failing record's place, and how many were finished in all when it failed first.
        self._failing: dict[tuple[int, int], int] = {}

    def failed(self, record: Record, finished: int) -> None:
        self._failing.setdefault((record.partition, record.offset), finished)

    def over(self, records: Sequence[Record]) -> None:
        for record in records:
            self._failing.pop((record.partition, record.offset), None)

    def everywhere(self, finished: int) -> bool:
        """Whether many records fail and none was finished since the first of them did."""
        return len(self._failing) >= EVERYWHERE and min(self._failing.values()) == finished
