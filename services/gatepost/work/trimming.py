"""Work topics never expire: they are trimmed below what their group has finished, less a replay window.

The window keeps records that were finished a short time ago readable, so that a group whose commits were lost
(an administrator's reset, a restored coordinator) repeats work instead of missing it; every step is safe to
repeat (G3, G4).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from gatepost.core.ports.log import Log, LogError

EVERY_S: Final = 60.0
REPLAY_WINDOW: Final = 10_000  # records of a partition

_log = structlog.get_logger()


class Trimmer:
    """Trims the topics of a service now and then. Any member of a group may; doing it twice is harmless."""

    def __init__(self, log: Log, work: Sequence[tuple[str, str]], *, window: int = REPLAY_WINDOW) -> None:
        """`work`: (topic, group) pairs."""
        self._log, self._work, self._window = log, work, window
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Trim every EVERY_S until stop(). A log that is away, or a missing right, costs only space."""
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(EVERY_S):
                    await self._stopping.wait()
            except TimeoutError:
                await self.trim()

    async def trim(self) -> None:
        for topic, group in self._work:
            try:
                for partition, position in (await self._log.committed(topic, group)).items():
                    if position > self._window:
                        await self._log.trim(topic, partition, position - self._window)
            except LogError as error:
                _log.warning("trim.waits", topic=topic, reason=str(error))
