"""The readers of the retry topics: wait until a copy is due, append it to its work topic again, finish.

All records in one tier wait equally long, so they fall due in the order in which they lie there. So only the first
few of each partition are in hand, those of every partition, and they pin nothing: what is behind them is not due
either. They are never moved to the end of their tier: that would begin the wait anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from gatepost.core.envelope import EnvelopeError
from gatepost.core.ports.log import Consumer, Entry, Log, Record
from gatepost.core.records import read_item
from gatepost.core.retry import time_left
from gatepost.core.topics import RETRY_TIERS, Topics
from gatepost.work.loop import WorkLoop
from gatepost.work.quarantine import Quarantine
from gatepost.work.stuck import Patience

WINDOW: Final = 20  # waiting records of a partition in memory; the rest waits in the log
# Enough for all partitions that there may be (log.partitions): a full hand would keep others' due ones waiting.
IN_HAND: Final = 1000 * WINDOW
# By our own fault only; a wait of hours is what they are for.
PATIENCE: Final = Patience(hangs_s=None)


class RetryReader:
    """Reads every tier; one group, run inside the relay's processes."""

    def __init__(self, log: Log, topics: Topics, quarantine: Quarantine, now_ms: Callable[[], int]) -> None:
        self._topics, self._now_ms = topics, now_ms
        self._loops = [self._tier(log, tier, wait, quarantine) for tier, wait in RETRY_TIERS.items()]

    def stop(self) -> None:
        for loop in self._loops:
            loop.stop()

    def gap(self) -> str | None:
        """A readiness check: what is wrong where a record that was to be read is gone."""
        return next((loop.gap for loop in self._loops if loop.gap), None)

    async def run(self) -> None:
        """Work until stop()."""
        async with asyncio.TaskGroup() as tasks:
            for loop in self._loops:
                tasks.create_task(loop.run())

    def _tier(self, log: Log, tier: str, wait_s: int, quarantine: Quarantine) -> WorkLoop:
        async def handle(consumer: Consumer, records: Sequence[Record]) -> None:
            (record,) = records
            remaining = time_left(record.timestamp_ms, self._now_ms(), wait_s)
            if remaining > 0:
                await loop.pause(remaining)
            if loop.stopping:
                return  # unfinished: it is read again by whoever owns the partition then
            await self._send_back(loop, consumer, record)

        group = self._topics.group(f"retry.{tier}")
        loop = WorkLoop(
            log,
            self._topics.retry(tier),
            group,
            handle,
            quarantine,
            in_hand=IN_HAND,
            window=WINDOW,
            patience=PATIENCE,
        )
        return loop

    @staticmethod
    async def _send_back(loop: WorkLoop, consumer: Consumer, record: Record) -> None:
        try:
            deferral = read_item(record).envelope.deferral
        except EnvelopeError as error:
            await loop.set_aside(consumer, record, str(error))
            return
        if deferral is None or not deferral.return_topic:
            await loop.set_aside(consumer, record, "a deferred copy does not say where it returns to")
            return
        back = Entry(deferral.return_topic, record.value, record.key, record.headers)
        await loop.persist(consumer, record, [back])
