"""What each next hop may take of us: messages at the same time, how many wait, and a breaker for dead ones."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from gatepost.core.ports.transport import RemoteReply

MAX_WAITING: Final = 200  # copies that wait here for one site; more go back to a tier and free the window
BREAK_AFTER: Final = 3  # attempts in a row in which no host could be reached
BREAK_MS: Final = 30_000
MAX_SITES: Final = 10_000  # sites remembered; the longest unused one is forgotten


class Site:
    """One next hop's state."""

    def __init__(self, concurrent: int) -> None:
        self.slots = asyncio.Semaphore(concurrent)
        self.waiting = 0
        self.failures = 0
        self.closed_until_ms = 0
        self.last_reply: RemoteReply | None = None

    @property
    def full(self) -> bool:
        return self.waiting >= MAX_WAITING

    def broken(self, now_ms: int) -> RemoteReply | None:
        """The reply to give in place of an attempt while the breaker is open, else None."""
        # More than BREAK_MS cannot be left: then the clock was set back, and the site is not to wait for that.
        return self.last_reply if 0 < self.closed_until_ms - now_ms <= BREAK_MS else None

    def reached(self) -> None:
        self.failures = 0
        self.closed_until_ms = 0

    def unreachable(self, reply: RemoteReply, now_ms: int) -> None:
        self.failures += 1
        self.last_reply = reply
        if self.failures >= BREAK_AFTER:
            self.closed_until_ms = now_ms + BREAK_MS


class SiteGate:
    """All sites by name."""

    def __init__(self, concurrent: int) -> None:
        self._concurrent = concurrent
        self._sites: OrderedDict[str, Site] = OrderedDict()

    def site(self, name: str) -> Site:
        site = self._sites.get(name)
        if site is None:
            site = self._sites[name] = Site(self._concurrent)
            self._forget()
        self._sites.move_to_end(name)
        return site

    def _forget(self) -> None:
        for name in list(self._sites):
            if len(self._sites) <= MAX_SITES:
                return
            if not self._sites[name].waiting:
                del self._sites[name]
