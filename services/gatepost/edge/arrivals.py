"""How many connections each client has made lately: a sliding minute in bounded memory.

Two counts for each client, of this minute and of the one before, which counts by the share of it that still lies
within the last 60 seconds: never more than one minute's connections too many, and no list of moments to keep.
"""

from __future__ import annotations

from typing import Final

WINDOW: Final = 60.0  # s
# Distinct clients in one window, some 10 MB; beyond them a client that is not counted yet is not limited.
MOST_CLIENTS: Final = 100_000


class Arrivals:
    """Of one listener. `now` is any clock in seconds that only goes forward."""

    def __init__(self) -> None:
        self._window = 0
        self._current: dict[str, int] = {}
        self._previous: dict[str, int] = {}

    def count(self, client: str, now: float) -> float:
        """Count one more connection; return how many there were in the last minute, with this one."""
        window, place = divmod(now, WINDOW)
        self._turn(int(window))
        if client in self._current or len(self._current) < MOST_CLIENTS:
            self._current[client] = self._current.get(client, 0) + 1
        before = self._previous.get(client, 0) * (1 - place / WINDOW)
        return self._current.get(client, 0) + before

    def remembered(self) -> int:
        return len(self._current) + len(self._previous)

    def _turn(self, window: int) -> None:
        if window == self._window:
            return
        self._previous = self._current if window == self._window + 1 else {}
        self._current, self._window = {}, window
