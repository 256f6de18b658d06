"""Memory for bodies that are being received, reserved before DATA is answered: nothing half-read is dropped.

What a body takes beyond that is lent: it is called back as soon as somebody waits, since a client that is silent
would else hold it for as long as it may be silent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Memory:
    """`cap` bytes shared by all sessions. First come, first served: a small body never overtakes a large one."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._lent: dict[Callable[[], None], int] = {}
        self.reserved = 0

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return len(self._waiting)

    def try_reserve(self, size: int) -> bool:
        """Reserve now if there is room and nobody waits; what is larger than the cap counts as the cap."""
        if self._waiting or not self._fits(size):
            return False
        self.reserved += size
        return True

    def borrow(self, size: int, call_back: Callable[[], None]) -> bool:
        """As try_reserve, until give_back(); when others wait, `call_back` is called and has to do that."""
        if not self.try_reserve(size):
            return False
        self._lent[call_back] = size
        return True

    def give_back(self, call_back: Callable[[], None]) -> None:
        """Release what was borrowed with this `call_back`; again, or without a loan, is fine."""
        size = self._lent.pop(call_back, 0)
        if size:
            self.release(size)

    async def reserve(self, size: int) -> None:
        """Reserve, waiting for room as long as the caller lets it."""
        if self.try_reserve(size):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, waiter))
        try:
            self._call_back()
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self.release(size)  # the room came together with the cancellation
            elif (size, waiter) in self._waiting:
                self._waiting.remove((size, waiter))
                self.release(0)  # those behind it may fit
            raise

    def release(self, size: int) -> None:
        """Give back what was reserved."""
        self.reserved -= size
        while self._waiting:
            wanted, waiter = self._waiting[0]
            if waiter.done():
                self._waiting.popleft()
                continue
            if not self._fits(wanted):
                return
            self._waiting.popleft()
            self.reserved += wanted
            waiter.set_result(None)

    def _call_back(self) -> None:
        """Have what is lent given back, the oldest first, until nobody waits."""
        for call_back in list(self._lent):
            if not self._waiting:
                return
            call_back()

    def _fits(self, size: int) -> bool:
        """Alone, even a size above the cap fits: otherwise it would wait for ever."""
        return self.reserved + size <= self.cap or self.reserved == 0
