"""Lists every kind: before anything is published, and again now and then.

A watch that was away for long begins anew with a list that names what is there, but not what was deleted
meanwhile; only a list of our own tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from gatepost_operator.cluster import Cluster, ClusterError
from gatepost_operator.objects import KINDS, ObjectCache

EVERY_S: Final = 300.0
SOON_S: Final = 1.0  # a watch that begins anew shows many objects at once: one list for all of them

_log = structlog.get_logger()


class Lister:
    """`first` is set when every kind has been listed; `on_change` is called after each list with something new."""

    def __init__(
        self,
        cluster: Cluster,
        cache: ObjectCache,
        namespace: str | None,
        backoffs: Iterable[float],
        on_change: Callable[[], None],
        *,
        every_s: float = EVERY_S,
    ) -> None:
        self._cluster, self._cache, self._namespace, self._backoffs = cluster, cache, namespace, backoffs
        self._on_change, self._every_s = on_change, every_s
        self._asked = asyncio.Event()
        self.first = asyncio.Event()

    def ask(self) -> None:
        """List soon: something was seen that may hide a deletion."""
        self._asked.set()

    async def run(self) -> None:
        """List until cancelled; an API server that is away, or has no such kinds yet, is waited for."""
        while True:
            for kind in KINDS:
                await self._list(kind)
            self.first.set()
            self._asked.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_s * random.uniform(0.8, 1.2)):
                    await self._asked.wait()
                await asyncio.sleep(SOON_S)

    async def _list(self, kind: str) -> None:
        for pause in self._backoffs:
            try:
                listed = await self._cluster.list_objects(kind, self._namespace)
            except ClusterError as error:
                _log.warning("list.waits", kind=kind, reason=str(error))
                await asyncio.sleep(pause)
                continue
            before = self._cache.changes
            self._cache.replace(kind, listed)
            if self._cache.changes != before:
                self._on_change()
            return
