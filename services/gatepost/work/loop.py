"""The loop over a work topic: fetch, hand out, never more in hand than memory allows, leave cleanly.

Reading it states the guarantee (G2): a record is finished only by its handler, after its outputs are durable, or by
the loop when it cannot be finished in time: then it lies in the topic again, or in quarantine (stuck.py).
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
from gatepost.work.hand import Hand
from gatepost.work.quarantine import Quarantine
from gatepost.work.stuck import Faults, Patience, appended_again, attempts_of

WINDOW: Final = 1000  # unfinished records of a partition: what one that hangs can hold back
IN_HAND: Final = 2000  # records of all partitions in memory: at most about 130 MB with inline bodies of 64 KB
FETCH_LIMIT_S: Final = 0.25  # also how long a stop waits for a fetch
APPEND_LIMIT_S: Final = 30.0
START_DELAY_S: Final = 1.0
FIRST_DELAY_S: Final = 0.5
LAST_DELAY_S: Final = 15.0  # a dependency that is back is used again within 30 s
GAP_AGAIN_S: Final = 60.0  # a gap is told as often as that, until somebody has seen to it
# While records trickle in, so long passes between two fetches: what comes meanwhile shares a fetch, an append, a
# sync; with 20 ms a message cost a quarter more. Mail that is alone is taken at once; in a crowd it waits this long
# at the most, which nobody can tell.
GATHER_S: Final = 0.05
CROWD: Final = 256  # records in one fetch: then there are enough to share, and no time is to be lost

Handle = Callable[[Consumer, Sequence[Record]], Awaitable[None]]

_log = structlog.get_logger()


class WorkLoop:
    """Reads one topic in one group until stop(); `handle` gets records in batches of at most `batch`.

    `handle` finishes records, or hands them to apart(). A fault in a batch harms only the record that causes it:
    the unfinished ones of the batch are then handled one by one. A record that keeps failing goes to quarantine,
    one that waits too long goes to the end of its topic.
    """

    def __init__(
        self,
        log: Log,
        topic: str,
        group: str,
        handle: Handle,
        quarantine: Quarantine,
        *,
        batch: int = 1,
        in_hand: int = IN_HAND,
        window: int = WINDOW,
        patience: Patience | None = None,
    ) -> None:
        """`in_hand` limits the records of all partitions in memory, `window` those of each."""
        self.log, self.topic = log, topic
        self._group, self._handle, self._batch = group, handle, batch
        self._most, self._window = in_hand, min(window, in_hand)
        self._quarantine = quarantine
        self._patience = patience or Patience()
        self._faults = Faults()
        self._stopping = asyncio.Event()
        self._in_hand = 0
        self._room = asyncio.Event()
        self._room.set()
        self._tasks: asyncio.TaskGroup | None = None
        self._hand: Hand | None = None
        self._gap = ""
        self._gap_told = 0.0

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def gap(self) -> str | None:
        """What is wrong where a record that was to be read is gone, until the partition is somebody else's."""
        return self._gap or None

    def owns(self, partition: int) -> bool:
        """Whether this member has this partition of the topic at the moment."""
        return self._hand is not None and self._hand.owns(partition)

    def stop(self) -> None:
        """Let what is in hand end and return from run()."""
        self._stopping.set()
        self._room.set()

    async def run(self) -> None:
        """Work until stop(). A partition with a gap stands still, told again and again: nothing is ever skipped."""
        hand = Hand(self.log.consumer(self.topic, self._group, window=self._window))
        hand.on_revoked(self._gap_is_gone)
        if not await self._join(hand):
            return
        self._hand = hand
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                while not self.stopping:
                    records = await self._fetch(hand)
                    for start in range(0, len(records), self._batch):
                        self._hand_out(hand, records[start : start + self._batch])
                    await self._room.wait()
                    if 0 < len(records) < CROWD:
                        await asyncio.sleep(GATHER_S)
        finally:
            self._tasks = self._hand = None
            await hand.close()

    def apart(self, consumer: Consumer, records: Sequence[Record]) -> None:
        """Have each of these handled by itself, beside the others; for handlers, about records they were given."""
        assert isinstance(consumer, Hand)
        for record in records:
            self._hand_out(consumer, [record])

    # -- reading

    async def _fetch(self, hand: Hand) -> Sequence[Record]:
        try:
            return await hand.fetch(FETCH_LIMIT_S)
        except LogGap as gap:
            now = asyncio.get_running_loop().time()
            if str(gap) != self._gap or now - self._gap_told >= GAP_AGAIN_S:
                self._gap, self._gap_told = str(gap), now
                _log.critical("log.gap", topic=self.topic, group=self._group, reason=self._gap, remedy=_REMEDY)
            metrics.LOG_GAPS.set(1, self.topic)
            return ()

    def _gap_is_gone(self, partitions: frozenset[int]) -> None:
        """Whoever has the partitions now finds out by itself; what is still ours is told again."""
        self._gap = ""
        metrics.LOG_GAPS.set(0, self.topic)

    def _hand_out(self, hand: Hand, records: Sequence[Record]) -> None:
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

    # -- faults of ours

    async def _guarded(self, hand: Hand, records: Sequence[Record]) -> None:
        """A fault of ours in one record stops neither the others nor the process; it is tried again and told."""
        count, tries = len(records), 0
        try:
            while (error := await self._handled(hand, records)) is not None:
                if count > 1:
                    self.apart(hand, hand.unfinished(records))
                    return
                tries += 1
                self._faults.failed(records[0], hand.finished)
                if tries >= self._patience.tries and not self._faults.everywhere(hand.finished):
                    reason = f"handling it failed {tries} times: {type(error).__name__}: {error}"
                    if await self._put_away(hand, records[0], reason):
                        return
                await self.pause(self._patience.retry_s)
                if self.stopping or not hand.unfinished(records):
                    return
        finally:
            self._faults.over(records)
            self._give_back(count)

    async def _handled(self, hand: Hand, records: Sequence[Record]) -> Exception | None:
        """None when the handler came to its end, else what went wrong."""
        try:
            async with asyncio.timeout(self._patience.hangs_s):
                await self._handle(hand, records)
        except Exception as error:
            if len(records) == 1:
                metrics.WORK_STUCK.add(self.topic)
            where = [(record.partition, record.offset) for record in records[:5]]
            _log.exception("work.stuck" if len(records) == 1 else "work.apart", topic=self.topic, records=where)
            return error
        return None

    async def _put_away(self, hand: Hand, record: Record, reason: str) -> bool:
        """Quarantine a record that cannot be handled; False when that fails by a fault of ours, too."""
        try:
            await self.set_aside(hand, record, reason)
        except Exception:
            _log.exception("quarantine.fault", topic=self.topic, partition=record.partition, offset=record.offset)
            return False
        return True

    async def set_aside(self, consumer: Consumer, record: Record, reason: str) -> bool:
        """Quarantine a record with its body, durably, then finish it. False when it is no longer ours to do."""
        entries: list[Entry] = []

        async def prepare() -> None:
            entries.append(await self._quarantine.entry(record, reason))

        if not await self.patiently(consumer, record, prepare, "quarantine.waits", movable=False):
            return False
        return await self.persist(consumer, record, entries)

    async def give_up_body(self, consumer: Consumer, record: Record, reason: str) -> bool:
        """Quarantine a record whose body cannot be had any more, as it is, then finish it."""
        return await self.persist(consumer, record, [self._quarantine.without_body(record, reason)])

    # -- waiting for others

    async def pause(self, seconds: float) -> None:
        """Wait, but not longer than until stop()."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def patiently(
        self,
        consumer: Consumer,
        record: Record,
        step: Callable[[], Awaitable[None]],
        what: str,
        *,
        movable: bool = True,
    ) -> bool:
        """Do `step` until it succeeds while a dependency is away. False when it is no longer ours to do.

        Then the record comes again: to its new owner, here after the next start, or from the end of its topic,
        where it was put because it waited too long. `movable` False: something was done already that must not be
        done twice, so it stays.
        """
        delay, began = FIRST_DELAY_S, asyncio.get_running_loop().time()
        limit = self._patience.waits_s * (1 + min(attempts_of(record), self._patience.longest))
        while True:
            try:
                await step()
            except (LogError, DirectoryUnavailable) as error:
                _log.warning(what, partition=record.partition, offset=record.offset, reason=str(error))
            else:
                return True
            if self.stopping or not consumer.owns(record.partition):
                return False
            now = asyncio.get_running_loop().time()
            if movable and now - began >= limit:
                if await self._moved_to_the_end(consumer, record):
                    return False
                began = now
            await self.pause(delay * random.uniform(0.7, 1.3))
            delay = min(delay * 2, LAST_DELAY_S)

    async def _moved_to_the_end(self, consumer: Consumer, record: Record) -> bool:
        """Append the record to its topic again and finish it here; False when that could not be done now.

        After an append of unknown outcome it may be there twice: both then become the same copies (G3).
        """
        if not isinstance(consumer, Hand) or not consumer.claim(record):
            return True  # somebody here has done so already
        try:
            await self.log.append(appended_again(record), APPEND_LIMIT_S)
        except LogError as error:
            consumer.unclaim(record)
            _log.warning("work.stays", partition=record.partition, offset=record.offset, reason=str(error))
            return False
        metrics.WORK_MOVED.add(self.topic)
        _log.warning(
            "work.moved",
            topic=self.topic,
            partition=record.partition,
            offset=record.offset,
            times=attempts_of(record) + 1,
        )
        consumer.finish(record)
        return True

    async def persist(self, consumer: Consumer, record: Record, entries: Sequence[Entry]) -> bool:
        """Append the outputs until they are durable, then finish the input."""

        async def append() -> None:
            await self.log.append_many(entries, APPEND_LIMIT_S)

        if entries and not await self.patiently(consumer, record, append, "log.waits", movable=False):
            return False
        consumer.finish(record)
        return True


_REMEDY: Final = "see docs/operations.md, When a record is gone; `gatepost skip-gap` goes on behind the gap"
