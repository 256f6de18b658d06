"""One question at a time: callers that ask the same while it is being answered share the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Owns the tasks that ask. A caller that is cancelled does not stop the question for the others."""

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Task[V]] = {}

    async def ask(self, key: K, question: Callable[[], Awaitable[V]]) -> V:
        """Return what `question` gives, or raise what it raises; it is not called when `key` is being asked."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.ensure_future(_run(question))
            self._running[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Cancel what is being asked; its callers get CancelledError."""
        tasks = set(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _finished(self, key: K, task: asyncio.Task[V]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            # Seen also when every caller has gone, so that asyncio does not complain of an unread exception.
            task.exception()


async def _run(question: Callable[[], Awaitable[V]]) -> V:
    return await question()
