"""A consumer with a memory of what it gave out: which records are unfinished, and whose they are to finish."""

from __future__ import annotations

from collections.abc import Sequence

from gatepost.core.ports.log import Consumer, Record


class Hand:
    """Implements the Consumer port over another consumer. `finished` counts what was finished."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._out: set[tuple[int, int]] = set()
        self._claimed: set[tuple[int, int]] = set()
        self.finished = 0
        self.start, self.owns = consumer.start, consumer.owns
        self.commit, self.close, self.on_revoked = consumer.commit, consumer.close, consumer.on_revoked
        consumer.on_revoked(self._forget)

    async def fetch(self, limit: float) -> Sequence[Record]:
        records = await self._consumer.fetch(limit)
        self._out.update([(record.partition, record.offset) for record in records])
        return records

    def finish(self, record: Record) -> None:
        self._out.discard((record.partition, record.offset))
        self._claimed.discard((record.partition, record.offset))
        self.finished += 1
        self._consumer.finish(record)

    def unfinished(self, records: Sequence[Record]) -> list[Record]:
        """Those that are not finished and still this member's to finish."""
        return [
            record
            for record in records
            if (record.partition, record.offset) in self._out and self.owns(record.partition)
        ]

    def claim(self, record: Record) -> bool:
        """Whether the caller, and nobody else, may put this unfinished record elsewhere.

        A partition that was lost and came back gives its unfinished records anew, while those from before are
        still being worked on.
        """
        place = (record.partition, record.offset)
        if place in self._claimed or not self.unfinished([record]):
            return False
        self._claimed.add(place)
        return True

    def unclaim(self, record: Record) -> None:
        self._claimed.discard((record.partition, record.offset))

    def _forget(self, partitions: frozenset[int]) -> None:
        for places in (self._out, self._claimed):
            places.difference_update([place for place in places if place[0] in partitions])
