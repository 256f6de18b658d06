"""Ids that were sent a short time ago: a copy that comes again is then not sent a second time (G5).

A copy comes twice when its record is read again, and when a client's retry was appended under the id of its first
try (docs/adr/0006); then both may be here at the same moment, so that one waits for what becomes of the other.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

MAX_RECENT: Final = 100_000  # about 10 MB; more than the windows of all partitions of a process


class RecentIds:
    """A bounded set of this process, the oldest id goes first. Who takes a partition over knows nothing of it."""

    def __init__(self, limit: int = MAX_RECENT) -> None:
        self._limit = limit
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._under_way: dict[str, asyncio.Event] = {}

    def add(self, own_id: str) -> None:
        self._ids[own_id] = None
        if len(self._ids) > self._limit:
            self._ids.popitem(last=False)

    def discard(self, own_id: str) -> None:
        self._ids.pop(own_id, None)

    def __contains__(self, own_id: str) -> bool:
        return own_id in self._ids

    @asynccontextmanager
    async def turn(self, own_ids: Iterable[str]) -> AsyncIterator[None]:
        """Have these ids for oneself: wait until no other attempt, which has its limits, is under way for any."""
        wanted = [own_id for own_id in own_ids if own_id]
        # All or none are taken, so that two attempts never hold what the other waits for.
        while (others := next(filter(None, map(self._under_way.get, wanted)), None)) is not None:
            await others.wait()
        ended = asyncio.Event()
        self._under_way.update(dict.fromkeys(wanted, ended))
        try:
            yield
        finally:
            for own_id in wanted:
                self._under_way.pop(own_id, None)
            ended.set()
