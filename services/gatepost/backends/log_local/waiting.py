"""A wake-up for readers that wait: set from anywhere in the loop, with a limit that costs no task."""

from __future__ import annotations

import asyncio


class WakeUp:
    """Like an event that is cleared by waiting."""

    def __init__(self) -> None:
        self._set = False
        self._waiters: set[asyncio.Future[None]] = set()

    def set(self) -> None:
        self._set = True
        for waiter in self._waiters:
            _wake(waiter)

    async def wait(self, limit: float) -> None:
        """Return when set() was called since the last wait, or after `limit` seconds."""
        if not self._set and limit > 0:
            loop = asyncio.get_running_loop()
            waiter = loop.create_future()
            self._waiters.add(waiter)
            timer = loop.call_later(limit, _wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiters.discard(waiter)
        self._set = False


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
