"""The readers of the retry topics: wait until a copy is due, append it to its work topic again, finish.

All records in one tier wait equally long, so they fall due in the order in which they lie there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from gatepost.core.envelope import EnvelopeError
from gatepost.core.ports.log import Consumer, Entry, Log, Record
from gatepost.core.records import read_item
from gatepost.core.topics import RETRY_TIERS, Topics
from gatepost.work.loop import WorkLoop
from gatepost.work.quarantine import quarantine_entry

IN_HAND: Final = 200  # waiting records of a tier in memory; the rest waits in the log


class RetryReader:
    """Reads every tier; one group, run inside the relay's processes."""

    def __init__(self, log: Log, topics: Topics, now_ms: Callable[[], int]) -> None:
        self._topics, self._now_ms = topics, now_ms
        self._loops = [self._tier(log, tier, wait) for tier, wait in RETRY_TIERS.items()]

    def stop(self) -> None:
        for loop in self._loops:
            loop.stop()

    async def run(self) -> None:
        """Work until stop(). Raises LogGap."""
        async with asyncio.TaskGroup() as tasks:
            for loop in self._loops:
                tasks.create_task(loop.run())

    def _tier(self, log: Log, tier: str, wait_s: int) -> WorkLoop:
        async def handle(consumer: Consumer, records: Sequence[Record]) -> None:
            (record,) = records
            remaining = (record.timestamp_ms - self._now_ms()) / 1000 + wait_s
            if remaining > 0:
                await loop.pause(remaining)
            if loop.stopping:
                return  # unfinished: it is read again by whoever owns the partition then
            await loop.persist(consumer, record, [self._back(record)])

        loop = WorkLoop(log, self._topics.retry(tier), self._topics.group(f"retry.{tier}"), handle, in_hand=IN_HAND)
        return loop

    def _back(self, record: Record) -> Entry:
        try:
            item = read_item(record)
        except EnvelopeError as error:
            return quarantine_entry(self._topics, record, str(error))
        deferral = item.envelope.deferral
        if deferral is None or not deferral.return_topic:
            return quarantine_entry(self._topics, record, "a deferred copy does not say where it returns to")
        return Entry(deferral.return_topic, record.value, record.key, record.headers)
