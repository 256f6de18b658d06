"""Asks lists in the DNS, and lets one rest that does not answer: a list that is closed must slow nobody down.

After FAILURES questions in a row without a usable answer a list is not asked for REST seconds and counts as failed
at once; then one question tries it, while the others still do not wait. Whether failed means anything is the
policy's `onError`. The log has one line when a list begins to rest and one when it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from gatepost.core.checks.dnsbl import failed, query_name
from gatepost.core.client_facts import Listing, Outcome
from gatepost.core.ports.resolver import NoSuchDomain, Resolver, ResolverFailure
from gatepost.telemetry import metrics

FAILURES: Final = 10
REST: Final = 60.0  # s
# Zones of policies that are no longer in force are forgotten with all others; a policy has at most 32 lists.
MOST_ZONES: Final = 1000

T = TypeVar("T")

_log = structlog.get_logger("gatepost.edge")


class _Zone:
    __slots__ = ("failures", "rests_until")

    def __init__(self) -> None:
        self.failures = 0
        self.rests_until = 0.0


class Lists:
    """Of one edge: what is known of each list is shared by all sessions. `clock` in seconds."""

    def __init__(self, resolver: Resolver, clock: Callable[[], float] | None = None) -> None:
        self._resolver, self._clock = resolver, clock
        self._zones: dict[str, _Zone] = {}

    async def ask(self, place: int, zone: str, value: str, deadline: float) -> Listing:
        """Ask a list about an address or a domain, at most until `deadline` (loop time). Raises nothing."""
        state = self._state(zone)
        now = self._now()
        if state.failures >= FAILURES:
            if now < state.rests_until:
                metrics.DNSBL.add(zone, "resting")
                return Listing(place, value, Outcome.FAILED)
            state.rests_until = now + REST  # this question tries it
        outcome, answer = await asked(self._resolver.query(query_name(value, zone), "A"), deadline)
        codes = () if answer is None else answer.records
        if outcome is Outcome.FOUND and not codes:
            outcome = Outcome.ABSENT  # RFC 5782 2.1: no A record, not listed
        listing = Listing(place, value, outcome, codes)
        self._note(zone, state, listing)
        return listing

    def resting(self, zone: str) -> bool:
        state = self._zones.get(zone)
        return state is not None and state.failures >= FAILURES and self._now() < state.rests_until

    def _note(self, zone: str, state: _Zone, listing: Listing) -> None:
        if not failed(listing):
            metrics.DNSBL.add(zone, listing.outcome.value.lower())
            if state.failures >= FAILURES:
                _log.info("dnsbl.answers_again", zone=zone)
            state.failures = 0
            return
        metrics.DNSBL.add(zone, "failed")
        state.failures += 1
        if state.failures == FAILURES:
            state.rests_until = self._now() + REST
            _log.warning("dnsbl.rests", zone=zone, answer=",".join(listing.codes) or "none", seconds=REST)

    def _state(self, zone: str) -> _Zone:
        state = self._zones.get(zone)
        if state is None:
            if len(self._zones) >= MOST_ZONES:
                self._zones.clear()
            state = self._zones[zone] = _Zone()
        return state

    def _now(self) -> float:
        return asyncio.get_running_loop().time() if self._clock is None else self._clock()


async def asked(question: Awaitable[T], deadline: float) -> tuple[Outcome, T | None]:
    """A question's answer until `deadline` (loop time): FAILED when there is none, ABSENT for NXDOMAIN."""
    try:
        async with asyncio.timeout_at(deadline):
            return Outcome.FOUND, await question
    except NoSuchDomain:
        return Outcome.ABSENT, None
    except (ResolverFailure, TimeoutError):
        return Outcome.FAILED, None
