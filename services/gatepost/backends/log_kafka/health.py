"""Whether the cluster can be used: asked all the time, and learned from the appends themselves.

A broker that refuses connections is noticed after PROBE_EVERY seconds, one that hangs after PROBE_EVERY and
PROBE_LIMIT together. A broker may answer and still not write (too few replicas are in sync, a partition has lost
its leader): then appends run into their limits, and each that does says so here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Final

import structlog

from gatepost.backends.log_kafka.connection import Connection
from gatepost.telemetry.lasting import lasting

PROBE_EVERY: Final = 0.5
PROBE_LIMIT: Final = 1.0
# After an append that ran into its limit nothing else is tried for so long, unless one succeeds meanwhile.
PAUSE: Final = 5.0
# A loop that is late by more than this was not running.
STALL: Final = 0.25

_log = structlog.get_logger(__name__)


class Health:
    """What is known of the cluster."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._answers = True
        # When the cluster last showed that it works: by an append, or by answering again after an outage.
        self._last_sign = 0.0
        self._last_doubt = -PAUSE
        # Partitions with appends that ran into their limits and have not come to an end.
        self._in_doubt: Counter[tuple[str, int]] = Counter()
        self._preferred: int | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = lasting("kafka probe", self._probe_regularly)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @property
    def available(self) -> bool:
        if not self._answers:
            return False
        return self._last_doubt <= self._last_sign or self._loop.time() - self._last_doubt > PAUSE

    def usable(self, topic: str, partition: int) -> bool:
        """Whether a partition has no append in doubt: more of them would only pile up behind it."""
        return (topic, partition) not in self._in_doubt

    def succeeded(self) -> None:
        self._last_sign = self._loop.time()

    def doubted(self, topic: str, partition: int, since: float) -> None:
        """An append has run into its limit; `since` is when it was handed over, in the loop's time.

        If another has succeeded after that, or the cluster was away and is back, it is a straggler of an outage
        that is over: only its partition waits.
        """
        if self._last_sign < since:
            self._last_doubt = self._loop.time()
        self._in_doubt[topic, partition] += 1

    def settled(self, topic: str, partition: int) -> None:
        """An append that was in doubt has come to an end."""
        self._in_doubt[topic, partition] -= 1
        if self._in_doubt[topic, partition] <= 0:
            del self._in_doubt[topic, partition]

    async def _probe_regularly(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY)
            begun = self._loop.time()
            answers = await self._any_answers()
            if self._loop.time() - begun > PROBE_LIMIT * len(self._connection.nodes()) + STALL:
                # It was this process that was late, not the broker: that says nothing.
                continue
            if answers is not self._answers:
                self._answers = answers
                if answers:
                    self._last_sign = self._loop.time()
                    _log.info("kafka answers again")
                else:
                    _log.warning("kafka does not answer")

    async def _any_answers(self) -> bool:
        """Ask the brokers until one answers; the one that answered last time first."""
        for node in sorted(self._connection.nodes(), key=lambda node: node != self._preferred):
            if await self._connection.answers(node, PROBE_LIMIT):
                self._preferred = node
                return True
        return False
