"""Stores in the router's own process: a copy goes straight into them, without a record of its own in between.

A file in a Maildir is as durable an output of the router's step as a record in `mailbox.<store>` would be, and has
the same id (G2, G3, G4; docs/adr/0010-near-stores.md). Whatever a store does not take at once goes the long way:
then the mailbox service retries and notifies, and the store's ledger knows what had been stored after all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from gatepost.core.ports.store import Store, StoreOutcome
from gatepost.router.copies import NearCopy

# A store that is slower than this is left to the mailbox service, so that other mail does not wait behind it ...
LIMIT_S: Final = 5.0
# ... and for so long nothing else is tried there: all of it goes by the log.
REST_S: Final = 30.0

_log = structlog.get_logger()


class NearStores:
    """The stores by name. Only stores that recognise a repeated id may be among them."""

    def __init__(self, stores: Mapping[str, Store], clock: Callable[[], float]) -> None:
        """`clock` gives seconds that never go back."""
        self._stores, self._clock = stores, clock
        self._rests_until: dict[str, float] = {}

    def takes(self, name: str) -> bool:
        """Whether copies for this store should be tried here."""
        return name in self._stores and self._clock() >= self._rests_until.get(name, 0.0)

    async def deliver(self, copies: Sequence[NearCopy]) -> frozenset[str]:
        """Store what can be stored within LIMIT_S; return the ids of the copies that are durable now."""
        by_store: dict[str, list[NearCopy]] = {}
        for copy in copies:
            by_store.setdefault(copy.store, []).append(copy)
        done: set[str] = set()
        async with asyncio.TaskGroup() as tasks:
            for name, group in by_store.items():
                tasks.create_task(self._deliver(name, group, done))
        return frozenset(done)

    async def _deliver(self, name: str, copies: Sequence[NearCopy], done: set[str]) -> None:
        try:
            async with asyncio.timeout(LIMIT_S):
                results = await self._stores[name].deliver([copy.delivery() for copy in copies])
        except TimeoutError:
            self._rests_until[name] = self._clock() + REST_S
            _log.warning("store.slow", store=name, waiting=len(copies), rests_s=REST_S)
            return
        done.update(
            copy.envelope.id
            for copy, result in zip(copies, results, strict=True)
            if result.outcome is StoreOutcome.STORED
        )
