"""The State port in one process, for tests and for what needs no log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gatepost.backends.state_entries import AllEntries, record_key, record_value
from gatepost.core.ports.state import Kind, StateUnavailable

T = TypeVar("T")


class MemoryState:
    """Implements the State port. `away` is for tests: changes are refused then."""

    def __init__(self, kinds: Sequence[Kind[Any]], now_ms: Callable[[], int]) -> None:
        self._entries, self._now_ms = AllEntries(kinds), now_ms
        self.away = False

    async def start(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to let go of."""

    def get(self, kind: Kind[T], key: str, now_ms: int) -> T | None:
        found: T | None = self._entries.of(kind).get(key, now_ms)
        return found

    @property
    def current(self) -> bool:
        return not self.away

    def size(self, kind: Kind[T]) -> int:
        return len(self._entries.of(kind))

    async def put(self, kind: Kind[T], key: str, value: T, until_ms: int, limit: float) -> None:
        record_key(kind, key)
        data = record_value(kind, value, until_ms)
        await self._reach()
        self._entries.of(kind).take_in(key, data, self._now_ms())

    def put_soon(self, kind: Kind[T], key: str, value: T, until_ms: int) -> None:
        record_key(kind, key)
        data = record_value(kind, value, until_ms)
        if not self.away:
            self._entries.of(kind).take_in(key, data, self._now_ms())

    async def take(self, kind: Kind[T], key: str, limit: float) -> T | None:
        await self._reach()
        taken: T | None = self._entries.of(kind).remove(key)
        return taken

    async def remove(self, kind: Kind[T], key: str, limit: float) -> None:
        await self.take(kind, key, limit)

    def on_change(self, kind: Kind[T], callback: Callable[[str, T | None], None]) -> None:
        self._entries.of(kind).on_change(callback)

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise StateUnavailable("the shared memory is away")
