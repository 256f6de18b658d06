"""Watches whether our own addresses are on the lists that the policies use: others may refuse our mail then.

Nothing is refused or delayed for it: a metric, an event and a line of the log at each change. Every edge looks for
itself, so that it is seen from where the mail comes from; the resolvers' caches answer most of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final, NamedTuple

import structlog

from gatepost.core.checks.dnsbl import Codes, DnsblPolicy, Subject, failed
from gatepost.core.event_kinds import LISTED
from gatepost.core.ids import new_id
from gatepost.core.ports.events import Event
from gatepost.core.tables import Tables
from gatepost.edge.dependencies import EdgeDependencies
from gatepost.edge.lists import Lists
from gatepost.telemetry import metrics

# s after a configuration came: what is configured anew is soon looked at, and not once for each of many changes.
FIRST_LOOK: Final = 10.0
# Addresses times lists; the questions of one look go out a few at a time.
AT_ONCE: Final = 8

_log = structlog.get_logger("gatepost.edge")


class Place(NamedTuple):
    """One of our addresses in one list."""

    address: str
    zone: str


class ListingWatch:
    """Of one edge. start() once; configured() at each change; close() ends it."""

    def __init__(self, deps: EdgeDependencies, lists: Lists) -> None:
        self._deps, self._lists = deps, lists
        self._policies: tuple[DnsblPolicy, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self.listed: dict[Place, str] = {}

    def configured(self, tables: Tables) -> None:
        """Take over what is to be watched; no task runs while it is nothing."""
        policies = tuple(
            dict.fromkeys(one.policy.dnsbl for one in tables.listeners.values() if one.policy.dnsbl.watch)
        )
        if policies == self._policies:
            return
        self._policies = policies
        self._cancel()
        if policies:
            self._task = asyncio.get_running_loop().create_task(self._run())
        else:
            self._forget(frozenset())

    async def close(self) -> None:
        task = self._task
        self._cancel()
        if task is not None:
            await asyncio.wait([task])

    async def look(self) -> None:
        """Ask every list about every address once; a list that does not answer changes nothing."""
        asked = dict(self._questions())
        self._forget(frozenset(asked))
        gate = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for place, (codes, deadline) in asked.items():
                group.create_task(self._ask(gate, place, codes, deadline))

    def _questions(self) -> Iterator[tuple[Place, tuple[Codes, float]]]:
        for policy in self._policies:
            for one in policy.lists:
                if one.subject is Subject.CLIENT_ADDRESS and one.weight > 0:
                    codes = Codes(one.codes)
                    for address in policy.watch:
                        yield Place(address, one.zone), (codes, policy.deadline)

    async def _ask(self, gate: asyncio.Semaphore, place: Place, codes: Codes, limit: float) -> None:
        async with gate:
            deadline = asyncio.get_running_loop().time() + limit
            listing = await self._lists.ask(0, place.zone, place.address, deadline)
        code = next((code for code in listing.codes if codes.match(code)), "")
        if code:
            self._appeared(place, code)
        elif not failed(listing):
            self._disappeared(place)

    def _appeared(self, place: Place, code: str) -> None:
        metrics.OWN_LISTED.set(1, *place)
        if self.listed.get(place) == code:
            return
        self.listed[place] = code
        facts = {"address": place.address, "zone": place.zone, "code": code}
        _log.warning("own_address.listed", **facts)
        now = self._deps.now_ms()
        self._deps.events.emit(Event(new_id(now), LISTED, now, service="edge", facts=facts))

    def _disappeared(self, place: Place) -> None:
        metrics.OWN_LISTED.set(0, *place)
        if self.listed.pop(place, None) is not None:
            _log.info("own_address.no_longer_listed", address=place.address, zone=place.zone)

    def _forget(self, still: frozenset[Place]) -> None:
        for place in [one for one in self.listed if one not in still]:
            self._disappeared(place)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        every = min(policy.watch_every for policy in self._policies)
        await asyncio.sleep(min(FIRST_LOOK, every))
        while True:
            try:
                await self.look()
            except Exception:
                _log.exception("internal error while looking for our own addresses in lists")
            await asyncio.sleep(every)
