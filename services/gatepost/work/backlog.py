"""How much waits in the work topics and since when: asked of the log itself, so it is the same from any process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec
import structlog

from gatepost.core.completion import Commit, finished_ranges
from gatepost.core.ports.log import Log, LogError, LogGap
from gatepost.core.topics import RETRY_TIERS, Topics
from gatepost.telemetry import metrics

LOOK_EVERY_S: Final = 15.0  # as often as most Prometheus servers ask
READ_LIMIT_S: Final = 5.0

_log = structlog.get_logger()


class Queue(NamedTuple):
    """A work topic and the group that works on it."""

    topic: str
    group: str


class Backlog(msgspec.Struct, frozen=True):
    """What is unfinished in a topic: how many records, and when the oldest was appended (None: there is none).

    `waiting` may count some finished ones, whose place did not fit into their group's commit.
    """

    topic: str
    waiting: int
    oldest_ms: int | None = None


def all_queues(topics: Topics, stores: Iterable[str]) -> list[Queue]:
    """Every work topic of an installation, in the order in which mail passes them."""
    return [
        Queue(topics.accepted, topics.group("router")),
        *(Queue(topics.mailbox(store), topics.group(f"mailbox.{store}")) for store in stores),
        Queue(topics.relay, topics.group("relay")),
        *retry_queues(topics),
    ]


def retry_queues(topics: Topics) -> list[Queue]:
    return [Queue(topics.retry(tier), topics.group(f"retry.{tier}")) for tier in RETRY_TIERS]


async def look(log: Log, queue: Queue) -> Backlog:
    """Look at one queue. Raises LogError."""
    ends, commits = await log.ends(queue.topic), await log.commits(queue.topic, queue.group)
    waiting = 0
    oldest: list[int] = []
    for partition, held in ends.items():
        commit = commits.get(partition, Commit(held.start))
        position = max(commit.position, held.start)
        finished = sum(len(run) for run in finished_ranges(commit))
        unfinished = held.stop - position - finished
        if unfinished <= 0:
            continue
        waiting += unfinished
        try:
            (first,) = await log.read(queue.topic, partition, [position], READ_LIMIT_S)
        except LogGap:
            continue  # finished and trimmed in between
        oldest.append(first.timestamp_ms)
    return Backlog(queue.topic, waiting, min(oldest, default=None))


class BacklogGauge:
    """Keeps the metrics of the queues that this process works on, until stop()."""

    def __init__(self, log: Log, queues: Sequence[Queue], now_ms: Callable[[], int]) -> None:
        self._log, self._queues, self._now_ms = log, queues, now_ms
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        while not self._stopping.is_set():
            for queue in self._queues:
                await self._measure(queue)
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    async def _measure(self, queue: Queue) -> None:
        try:
            found = await look(self._log, queue)
        except LogError as error:
            # What was seen last stays: an alarm on the log itself tells that it is away.
            _log.debug("queue.unseen", topic=queue.topic, reason=str(error))
            return
        metrics.QUEUE_DEPTH.set(found.waiting, queue.topic)
        age = 0.0 if found.oldest_ms is None else max(0.0, (self._now_ms() - found.oldest_ms) / 1000)
        metrics.QUEUE_AGE.set(age, queue.topic)
