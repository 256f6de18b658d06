"""Bodies in `content.transit` go when no unfinished record refers to them any more (docs/adr/0007).

A look goes like this, and the order is what makes it right: first every group's commits are read, then every work
topic from there to its end. A message moves from topic to topic, each time durable in the next before it is
finished in the last; so one that was unfinished when the first commit was read is found in the topic that it had
not left by the time of that topic's commit. Whatever is appended later refers to the body of a record that was
found, or to a new body; new bodies are left alone for MARGIN_S.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import structlog

from gatepost.core.completion import Commit, finished_ranges
from gatepost.core.ports.log import Log, LogError, LogGap
from gatepost.core.stopped import reference_in
from gatepost.core.topics import Topics
from gatepost.telemetry import metrics
from gatepost.work.backlog import all_queues

EVERY_S: Final = 3600.0
FIRST_S: Final = 300.0  # after the start: groups have settled, and restarts do not each cost a look
# A body is older than this before it is trimmed. Much longer than an append may be in doubt (its record appears
# when the log is back), and as long as work that is repeated after the reset of a group shall find its bodies.
MARGIN_S: Final = 86_400.0
# Unfinished records that one look reads: 200 MB of ordinary mail, some seconds. A longer backlog (a next hop that
# is away with much mail deferred) is left to the topic's retention.
MOST_UNFINISHED: Final = 50_000
READ_AT_ONCE: Final = 200
READ_LIMIT_S: Final = 30.0

_log = structlog.get_logger()


class ContentTrimmer:
    """One process at a time should do it, where `ours` says so; if two do, it is done twice."""

    def __init__(
        self,
        log: Log,
        topics: Topics,
        stores: Sequence[str],
        ours: Callable[[], bool],
        now_ms: Callable[[], int],
        *,
        margin_s: float = MARGIN_S,
        most: int = MOST_UNFINISHED,
    ) -> None:
        """`stores`: all of the installation; what waits for a store that is not named here is not looked at."""
        self._log, self._topics, self._ours, self._now_ms = log, topics, ours, now_ms
        self._margin_ms, self._most = int(margin_s * 1000), most
        self._work = all_queues(topics, stores)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Look every EVERY_S until stop(). What goes wrong costs only space."""
        wait = FIRST_S
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(wait):
                    await self._stopping.wait()
            except TimeoutError:
                wait = EVERY_S
                if self._ours():
                    await self.look()

    async def look(self) -> None:
        """Find what is still referred to, and trim each partition below it."""
        try:
            lowest = await self._lowest_references()
            outcome = "backlog" if lowest is None else "trimmed"
            if lowest is not None:
                await self._trim(lowest)
        except LogError as error:
            outcome = "failed"
            _log.warning("content.trim.waits", reason=str(error))
        metrics.CONTENT_TRIMS.add(outcome)

    async def _lowest_references(self) -> Mapping[int, int] | None:
        """Return the lowest offset that is referred to in each partition; None when there is too much to read."""
        commits = {topic: await self._log.commits(topic, group) for topic, group in self._work}
        unfinished = [
            (topic, partition, wanted)
            for topic, _ in self._work
            for partition, held in (await self._log.ends(topic)).items()
            for wanted in _ranges(commits[topic].get(partition), held)
        ]
        count = sum(len(wanted) for _, _, wanted in unfinished)
        if count > self._most:
            _log.info("content.trim.backlog", unfinished=count, most=self._most)
            return None
        lowest: dict[int, int] = {}
        for topic, partition, wanted in unfinished:
            await self._read(topic, partition, wanted, lowest)
        return lowest

    async def _read(self, topic: str, partition: int, wanted: range, lowest: dict[int, int]) -> None:
        for start in range(wanted.start, wanted.stop, READ_AT_ONCE):
            offsets = range(start, min(start + READ_AT_ONCE, wanted.stop))
            for record in await self._log.read(topic, partition, offsets, READ_LIMIT_S):
                _, reference = reference_in(record.headers)
                if reference is None or reference.topic != self._topics.content_transit or not reference.offsets:
                    continue
                before = lowest.get(reference.partition)
                first = min(reference.offsets)
                lowest[reference.partition] = first if before is None else min(before, first)

    async def _trim(self, lowest: Mapping[int, int]) -> None:
        topic = self._topics.content_transit
        old_ms = self._now_ms() - self._margin_ms
        held = await self._log.ends(topic)
        left = 0
        for partition, there in held.items():
            before = await self._log.first_since(topic, partition, old_ms) if there else there.start
            before = min(before, lowest.get(partition, before))
            if before > there.start:
                await self._log.trim(topic, partition, before)
                metrics.CONTENT_TRIMMED.add(by=before - there.start)
            left += there.stop - max(before, there.start)
        metrics.CONTENT_PIECES.set(left)


def _ranges(commit: Commit | None, held: range) -> Iterator[range]:
    """Give the offsets of a partition that are not known to be finished: all of it without a commit."""
    offset = held.start
    if commit is not None:
        if not held.start <= commit.position <= held.stop:
            # Its reader tells of that gap, and until a person has seen to it nothing is certain.
            raise LogGap(f"a group is at offset {commit.position}, the partition has {held.start} to {held.stop}")
        offset = commit.position
        for finished in finished_ranges(commit):
            if finished.start > offset:
                yield range(offset, min(finished.start, held.stop))
            offset = max(offset, finished.stop)
    if offset < held.stop:
        yield range(offset, held.stop)
