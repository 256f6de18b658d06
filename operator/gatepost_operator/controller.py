"""The loop: what the cluster, the log and the Lease say -> what is published and which statuses are written.

Level-triggered: each turn starts from all that is known and ends with what differs; a turn that fails in the
middle is simply taken again. Changes are bundled, and a turn is taken now and then even when nothing was heard.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from gatepost.backends.config_log import ACK_EVERY_S, ALIVE_MS, AckReader
from gatepost.core.compile import Status
from gatepost.core.compile.conditions import ACCEPTED
from gatepost.core.config_head import live_acks
from gatepost.core.ports.log import LogError
from gatepost.telemetry import metrics
from gatepost_operator.cluster import Cluster, ClusterConflict, ClusterError
from gatepost_operator.compilation import Compilation, Compiler
from gatepost_operator.events import held_back_event, how_to_allow
from gatepost_operator.lease import LeaseKeeper
from gatepost_operator.objects import KINDS, ObjectCache, StoredObject
from gatepost_operator.programmed import Edges, edges_of, fingerprints
from gatepost_operator.publication import Publication
from gatepost_operator.removal import QUIET_S, Removal
from gatepost_operator.status_writer import StatusWriter
from gatepost_operator.statuses import Moment, wanted_statuses

EDGE: Final = "edge"

_log = structlog.get_logger()


class Pace(msgspec.Struct, frozen=True):
    """In seconds. `bundle`: changes within this time make one turn. `tick`: a turn without any change, for what
    only time changes. `messages`: how often a message alone is reason enough to write a status. `settle`: after
    the log was away, how long its readers' silence means nothing. `quiet`: how long nothing more was deleted before
    deletions count.
    """

    bundle: float = 0.2
    tick: float = 5.0
    messages: float = 15.0
    settle: float = ACK_EVERY_S * 1.5
    quiet: float = QUIET_S


class Clock(msgspec.Struct, frozen=True):
    """Seconds that only grow; ms since 1970; RFC 3339 in UTC with whole seconds."""

    monotonic: Callable[[], float]
    now_ms: Callable[[], int]
    now: Callable[[], str]


class Controller:
    """`last_turn` is when the last turn began, for liveness."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        cache: ObjectCache,
        compiler: Compiler,
        lease: LeaseKeeper,
        publication: Publication,
        acks: AckReader,
        log_available: Callable[[], bool],
        writer: StatusWriter,
        clock: Clock,
        pace: Pace = Pace(),  # noqa: B008  (frozen)
    ) -> None:
        self._cluster, self._cache, self._compiler, self._lease = cluster, cache, compiler, lease
        self._publication, self._acks, self._log_available = publication, acks, log_available
        self._writer, self._clock, self._pace = writer, clock, pace
        self._wake = asyncio.Event()
        self._objects: tuple[StoredObject, ...] = ()
        self._compilation: Compilation | None = None
        self._compiled_at = -1
        self._contained: dict[str, bytes] = {}
        self._settled = float("-inf")
        self._messages_at = float("-inf")
        self._announced: Removal | None = None
        self._complaint = ""
        self.last_turn = clock.monotonic()

    def wake(self) -> None:
        """Something has changed: take a turn soon."""
        self._wake.set()

    async def run(self) -> None:
        """Take turns until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self._pace.tick, self._publication.again_s or self._pace.tick)):
                    await self._wake.wait()
                await asyncio.sleep(self._pace.bundle)
            self._wake.clear()
            await self.turn()

    async def turn(self) -> None:
        """Compile, publish and offer statuses, as far as that is possible now."""
        self.last_turn = self._clock.monotonic()
        if not self._cache.complete:
            return
        compilation = await self._compile()
        if not self._lease.held:
            self._writer.offer({})
            return
        published = await self._publish(compilation)
        if self._lease.held:
            self._judge(compilation, published)

    async def _compile(self) -> Compilation:
        changes = self._cache.changes
        if self._compilation is None or self._compiled_at != changes:
            objects = self._cache.snapshot()
            # In a thread: thousands of domains take a while, and the Lease must be renewed meanwhile.
            compilation = await asyncio.to_thread(self._compiler.compile, objects)
            if self._compilation is None or self._compilation.hash != compilation.hash:
                self._contained = await asyncio.to_thread(fingerprints, compilation.configuration)
            self._objects, self._compilation, self._compiled_at = objects, compilation, changes
            _count(compilation)
        return self._compilation

    async def _publish(self, compilation: Compilation) -> bool:
        """Whether the log holds what it should."""
        try:
            await self._publication.step(compilation)
            await self._announce()
        except ClusterConflict:  # the Lease has changed: it is read again by itself
            return True
        except ClusterError as error:
            self._complain(str(error))
            return True
        except LogError as error:
            metrics.OPERATOR_PUBLISHED.add("failed")
            self._complain(str(error))
            return False
        self._complain("")
        return True

    async def _announce(self) -> None:
        """Tell of a removal that waits, once, by an event about the Lease."""
        removal = self._publication.removal
        if removal is None or removal == self._announced:
            self._announced = removal
            return
        event = held_back_event(removal, self._lease.reference, self._clock.now())
        await self._cluster.post_event(event)
        self._announced = removal

    def _judge(self, compilation: Compilation, published: bool) -> None:
        """Offer the statuses that have to be written."""
        now = self._clock.monotonic()
        edges = self._current_edges(now)
        refresh = now - self._messages_at >= self._pace.messages
        if refresh:
            self._messages_at = now
        moment = Moment(self._clock.now(), edges, self._waits_for(published), refresh)
        self._writer.offer(wanted_statuses(self._objects, compilation, self._contained, moment))

    def _current_edges(self, now: float) -> Edges | None:
        if not self._log_available():
            self._settled = now + self._pace.settle
        if now < self._settled or self._lease.epoch is None:
            return None  # nobody can be heard: that says nothing about the edges
        live = live_acks(self._acks.acks, EDGE, self._clock.now_ms(), ALIVE_MS)
        self._publication.known.keep({ack.hash for ack in live})
        metrics.OPERATOR_EDGES.set(float(len(live)))
        return edges_of(live, self._publication.known)

    def _waits_for(self, published: bool) -> str:
        if not published:
            return "the log is not available, so the configuration cannot be published"
        removal = self._publication.removal
        if removal is None:
            return ""
        return f"nothing new is published, since {removal}; {how_to_allow(removal, self._lease.name)}"

    def _complain(self, reason: str) -> None:
        """Log a failure once, and that it is over."""
        if reason and reason != self._complaint:
            _log.warning("publish.waits", reason=reason)
        elif self._complaint and not reason:
            _log.info("publish.works")
        self._complaint = reason


def _count(compilation: Compilation) -> None:
    counts = {(kind, accepted): 0 for kind in KINDS for accepted in ("True", "False")}
    for key, conditions in compilation.conditions.items():
        bad = any(one.type == ACCEPTED and one.status is Status.FALSE for one in conditions)
        counts[key.kind, "False" if bad else "True"] += 1
    for labels, count in counts.items():
        metrics.OPERATOR_OBJECTS.set(float(count), *labels)
