"""What a directory answered, for a while: fewer searches, and mail goes on when the directory is away.

A "yes" is used for `positive` seconds, and up to `stale` seconds while the directory does not answer. A "no" is
used for at most 30 seconds and never beyond: a new account must not wait, and mail is not refused for good
because of an old answer.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

import msgspec
import structlog

from gatepost.backends.single_flight import SingleFlight
from gatepost.core.ports.directory import DirectoryUnavailable

MAX_NEGATIVE_SECONDS: Final = 30.0
# While the directory is away, a stale answer is given at once; one caller in this time asks again.
RECHECK_SECONDS: Final = 5.0
# Kept apart, so that guessed addresses cannot push the real ones out; an entry takes about 1 KB.
MAX_POSITIVE: Final = 50_000
MAX_NEGATIVE: Final = 20_000

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_log = structlog.get_logger("gatepost.directory")


class _Known(msgspec.Struct, Generic[V], gc=False):
    """A "yes": fresh until one moment, usable in need until another, both of the monotonic clock."""

    value: V
    fresh: float
    usable: float


class DirectoryCache(Generic[K, V]):
    """Answers by key; `ask` gives None for "no" and raises DirectoryUnavailable. Times in seconds."""

    def __init__(
        self, positive: float, negative: float, stale: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._positive = positive
        self._negative = min(negative, MAX_NEGATIVE_SECONDS)
        self._stale = max(stale, positive)
        self._clock = clock
        self._known: OrderedDict[K, _Known[V]] = OrderedDict()
        self._unknown: OrderedDict[K, float] = OrderedDict()
        self._flights: SingleFlight[K, V | None] = SingleFlight()

    async def get(self, key: K, ask: Callable[[], Awaitable[V | None]]) -> V | None:
        """Return the answer, asking where it is not known. Raises DirectoryUnavailable without a usable one."""
        now = self._clock()
        known = self._known.get(key)
        if known is not None and now < known.fresh:
            self._known.move_to_end(key)
            return known.value
        if self._unknown.get(key, now) > now:
            return None
        try:
            return await self._flights.ask(key, lambda: self._ask_and_keep(key, ask))
        except DirectoryUnavailable:
            known = self._known.get(key)
            now = self._clock()
            if known is None or now >= known.usable:
                raise
            if now >= known.fresh:
                _log.warning("directory_stale_answer", key=str(key))
                known.fresh = min(now + RECHECK_SECONDS, known.usable)
            return known.value

    async def close(self) -> None:
        await self._flights.close()
        self._known.clear()
        self._unknown.clear()

    async def _ask_and_keep(self, key: K, ask: Callable[[], Awaitable[V | None]]) -> V | None:
        value = await ask()
        now = self._clock()
        if value is None:
            self._known.pop(key, None)
            _keep(self._unknown, key, now + self._negative, MAX_NEGATIVE)
        else:
            self._unknown.pop(key, None)
            known = _Known(value, now + self._positive, now + self._stale)
            _keep(self._known, key, known, MAX_POSITIVE)
        return value


_T = TypeVar("_T")


def _keep(table: OrderedDict[K, _T], key: K, value: _T, limit: int) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > limit:
        table.popitem(last=False)
