"""Ids that were sent a short time ago: a record that comes again is then not sent a second time (G5)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MAX_RECENT: Final = 100_000  # about 10 MB; more than the windows of all partitions of a process


class RecentIds:
    """A bounded set; the oldest id goes first."""

    def __init__(self, limit: int = MAX_RECENT) -> None:
        self._limit = limit
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, own_id: str) -> None:
        self._ids[own_id] = None
        if len(self._ids) > self._limit:
            self._ids.popitem(last=False)

    def discard(self, own_id: str) -> None:
        self._ids.pop(own_id, None)

    def __contains__(self, own_id: str) -> bool:
        return own_id in self._ids
