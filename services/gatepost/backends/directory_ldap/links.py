"""Lends links to callers: work in a thread, with a time limit that holds whatever the thread does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from gatepost.core.ports.directory import DirectoryUnavailable

L = TypeVar("L")
T = TypeVar("T")


class Lending(Generic[L]):
    """Things that one thread at a time may use. `limit`: seconds for waiting and working together."""

    def __init__(self, name: str, things: Sequence[L], limit: float) -> None:
        self._limit = limit
        self._worker = ThreadPoolExecutor(len(things), thread_name_prefix=name)
        # The one used last first: its connection is open.
        self._free: asyncio.LifoQueue[L] = asyncio.LifoQueue()
        for thing in reversed(things):
            self._free.put_nowait(thing)

    async def run(self, work: Callable[[L], T]) -> T:
        """Run `work` in a thread. Raises DirectoryUnavailable when the time is over.

        The thread then goes on until its own limits end it, and only then is its thing free again.
        """
        try:
            async with asyncio.timeout(self._limit):
                thing = await self._free.get()
                future = asyncio.get_running_loop().run_in_executor(self._worker, work, thing)
                future.add_done_callback(lambda done: self._give_back(thing, done))
                return await asyncio.shield(future)
        except TimeoutError:
            raise DirectoryUnavailable(f"no answer within {self._limit} s") from None

    def close(self, last: Callable[[L], None]) -> None:
        """Let `last` run for what is free, in the threads; what is in use ends by its own limits."""
        while not self._free.empty():
            self._worker.submit(last, self._free.get_nowait())
        self._worker.shutdown(wait=False)

    def _give_back(self, thing: L, done: asyncio.Future[T]) -> None:
        if not done.cancelled():
            # Seen also when the caller has gone.
            done.exception()
        self._free.put_nowait(thing)
