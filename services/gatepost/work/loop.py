"""The loop over a work topic: fetch, hand out, never more in hand than memory allows, leave cleanly.

Reading it states the guarantee (G2): a record is finished only by its handler, after its outputs are durable.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from gatepost.core.ports.directory import DirectoryUnavailable
from gatepost.core.ports.log import Consumer, Entry, Log, LogError, LogGap, Record
from gatepost.telemetry import metrics

WINDOW: Final = 1000  # unfinished records of a partition: what one that hangs can hold back
IN_HAND: Final = 2000  # records of all partitions in memory: at most about 130 MB with inline bodies of 64 KB
FETCH_LIMIT_S: Final = 0.25  # also how long a stop waits for a fetch
APPEND_LIMIT_S: Final = 30.0
START_DELAY_S: Final = 1.0
FIRST_DELAY_S: Final = 0.5
LAST_DELAY_S: Final = 15.0  # a dependency that is back is used again within 30 s
STUCK_DELAY_S: Final = 60.0  # a record that our own fault keeps: tried again, and others go on meanwhile
# While records trickle in, so long passes between two fetches: what comes meanwhile shares a fetch, an append, a
# sync. Mail that is alone is taken at once; in a crowd it waits this long at the most, which nobody can tell.
GATHER_S: Final = 0.02
CROWD: Final = 64  # records in one fetch: then there are enough to share, and no time is to be lost

Handle = Callable[[Consumer, Sequence[Record]], Awaitable[None]]

_log = structlog.get_logger()


class _Hand:
    """A consumer that remembers which of its records were given and are not finished."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._out: set[tuple[int, int]] = set()
        self.start, self.owns = consumer.start, consumer.owns
        self.commit, self.close, self.on_revoked = consumer.commit, consumer.close, consumer.on_revoked
        consumer.on_revoked(self._forget)

    async def fetch(self, limit: float) -> Sequence[Record]:
        records = await self._consumer.fetch(limit)
        self._out.update([(record.partition, record.offset) for record in records])
        return records

    def finish(self, record: Record) -> None:
        self._out.discard((record.partition, record.offset))
        self._consumer.finish(record)

    def unfinished(self, records: Sequence[Record]) -> list[Record]:
        """Those that are not finished and still this member's to finish."""
        return [
            record
            for record in records
            if (record.partition, record.offset) in self._out and self.owns(record.partition)
        ]

    def _forget(self, partitions: frozenset[int]) -> None:
        self._out = {(partition, offset) for partition, offset in self._out if partition not in partitions}


class WorkLoop:
    """Reads one topic in one group until stop(); `handle` gets records in batches of at most `batch`.

    `handle` finishes records, or hands them to apart(). A fault in a batch harms only the record that causes it:
    the unfinished ones of the batch are then handled one by one.
    """

    def __init__(
        self, log: Log, topic: str, group: str, handle: Handle, *, batch: int = 1, in_hand: int = IN_HAND
    ) -> None:
        self.log, self.topic = log, topic
        self._group, self._handle, self._batch, self._most = group, handle, batch, in_hand
        self._stopping = asyncio.Event()
        self._in_hand = 0
        self._room = asyncio.Event()
        self._room.set()
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        """Let what is in hand end and return from run()."""
        self._stopping.set()
        self._room.set()

    async def run(self) -> None:
        """Work until stop(). Raises LogGap: an operator must look before anything is skipped."""
        hand = _Hand(self.log.consumer(self.topic, self._group, window=min(WINDOW, self._most)))
        if not await self._join(hand):
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                while not self.stopping:
                    records = await hand.fetch(FETCH_LIMIT_S)
                    for start in range(0, len(records), self._batch):
                        self._hand_out(hand, records[start : start + self._batch])
                    await self._room.wait()
                    if 0 < len(records) < CROWD:
                        await asyncio.sleep(GATHER_S)
        except* LogGap as gaps:
            _log.critical("log.gap", topic=self.topic, reason=str(gaps.exceptions[0]))
            raise
        finally:
            self._tasks = None
            await hand.close()

    def apart(self, consumer: Consumer, records: Sequence[Record]) -> None:
        """Have each of these handled by itself, beside the others; for handlers, about records they were given."""
        assert isinstance(consumer, _Hand)
        for record in records:
            self._hand_out(consumer, [record])

    def _hand_out(self, hand: _Hand, records: Sequence[Record]) -> None:
        assert self._tasks is not None
        self._take(len(records))
        self._tasks.create_task(self._guarded(hand, records))

    async def _join(self, consumer: Consumer) -> bool:
        """Join the group, however long the log is away; False when stopped before."""
        while not self.stopping:
            try:
                await consumer.start()
            except LogError as error:
                _log.warning("log.waits", topic=self.topic, reason=str(error))
                await self.pause(START_DELAY_S)
            else:
                return True
        return False

    def _take(self, count: int) -> None:
        self._in_hand += count
        metrics.LOG_UNFINISHED.set(self._in_hand, self.topic)
        if self._in_hand >= self._most:
            self._room.clear()

    def _give_back(self, count: int) -> None:
        self._in_hand -= count
        metrics.LOG_UNFINISHED.set(self._in_hand, self.topic)
        if self._in_hand < self._most or self.stopping:
            self._room.set()

    async def _guarded(self, hand: _Hand, records: Sequence[Record]) -> None:
        """A fault of ours in one record stops neither the others nor the process; it is tried again and told."""
        count = len(records)
        try:
            while not await self._handled(hand, records):
                if count > 1:
                    self.apart(hand, hand.unfinished(records))
                    return
                await self.pause(STUCK_DELAY_S)
                if self.stopping or not hand.unfinished(records):
                    return
        finally:
            self._give_back(count)

    async def _handled(self, hand: _Hand, records: Sequence[Record]) -> bool:
        try:
            await self._handle(hand, records)
        except Exception:
            if len(records) == 1:
                metrics.WORK_STUCK.add(self.topic)
            where = [(record.partition, record.offset) for record in records[:5]]
            _log.exception("work.stuck" if len(records) == 1 else "work.apart", topic=self.topic, records=where)
            return False
        return True

    async def pause(self, seconds: float) -> None:
        """Wait, but not longer than until stop()."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def patiently(
        self, consumer: Consumer, record: Record, step: Callable[[], Awaitable[None]], what: str
    ) -> bool:
        """Do `step` until it succeeds while a dependency is away. False when it is no longer ours to do.

        Then the record stays unfinished and comes again: to its new owner, or here after the next start.
        """
        delay = FIRST_DELAY_S
        while True:
            try:
                await step()
            except (LogError, DirectoryUnavailable) as error:
                _log.warning(what, partition=record.partition, offset=record.offset, reason=str(error))
            else:
                return True
            if self.stopping or not consumer.owns(record.partition):
                return False
            await self.pause(delay * random.uniform(0.7, 1.3))
            delay = min(delay * 2, LAST_DELAY_S)

    async def persist(self, consumer: Consumer, record: Record, entries: Sequence[Entry]) -> bool:
        """Append the outputs until they are durable, then finish the input."""

        async def append() -> None:
            await self.log.append_many(entries, APPEND_LIMIT_S)

        if entries and not await self.patiently(consumer, record, append, "log.waits"):
            return False
        consumer.finish(record)
        return True
