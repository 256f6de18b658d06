"""Puts the parts of one operator together and runs them until it is told to stop or one of them fails."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

import structlog

from gatepost.backends.config_log import AckReader, ConfigurationPublisher
from gatepost.core.compile.surroundings import surroundings
from gatepost.core.manifest.settings import Settings
from gatepost.core.ports.log import Log, LogError, LogMisconfigured
from gatepost.core.topics import Topics
from gatepost.telemetry import metrics
from gatepost.telemetry.health import HealthServer
from gatepost_operator.cluster import Cluster, ClusterError, Document
from gatepost_operator.compilation import Compiler
from gatepost_operator.controller import Clock, Controller, Pace
from gatepost_operator.lease import LeaseKeeper, Timing
from gatepost_operator.listing import Lister
from gatepost_operator.objects import ObjectCache
from gatepost_operator.publication import Publication
from gatepost_operator.status_writer import StatusWriter
from gatepost_operator.watch import Backoffs, KopfWatch, OnEvent

LOG_RETRY_S: Final = 2.0
STUCK_S: Final = 120.0  # a turn of the loop takes seconds, also with thousands of domains
STOP_S: Final = 20.0

_log = structlog.get_logger()


class Watch(Protocol):
    """Gives events from start() to close(); watch_over() ends only by raising."""

    def start(self) -> None: ...

    async def watch_over(self) -> None: ...

    async def close(self) -> None: ...


def clock() -> Clock:
    return Clock(
        monotonic=time.monotonic,
        now_ms=lambda: time.time_ns() // 1_000_000,
        now=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _now_micro() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Operator:
    """All parts of one operator. `watch` is kopf's unless a test gives another one."""

    def __init__(
        self,
        settings: Settings,
        lease: str,
        cluster: Cluster,
        log: Log,
        identity: str,
        *,
        pace: Pace = Pace(),  # noqa: B008  (frozen)
        timing: Timing = Timing(),  # noqa: B008  (frozen)
        watch: Callable[[str | None, OnEvent], Watch] = KopfWatch,
    ) -> None:
        around = surroundings(settings, any_namespace=False)
        self._settings, self._log = settings, log
        self._topics = Topics(settings.log.topic_prefix)
        # Only where others may own domains has the operator to look beyond its own namespace.
        self._namespace = None if settings.domain_ownership else settings.release_namespace
        self._clock = clock()
        self._cache = ObjectCache(frozenset({settings.release_namespace, *settings.domain_ownership}))
        self._lease = LeaseKeeper(
            cluster,
            settings.release_namespace,
            lease,
            identity,
            monotonic=time.monotonic,
            now=_now_micro,
            on_change=self._wake,
            timing=timing,
        )
        metrics.OPERATOR_LEADER.read = lambda: {(): float(self._lease.held)}
        self._acks = AckReader(log, self._topics, self._wake, self._clock.now_ms)
        self._writer = StatusWriter(cluster, self._written, time.monotonic)
        self._lister = Lister(cluster, self._cache, self._namespace, Backoffs(), self._wake)
        self._watch = watch(self._namespace, self._seen)
        self._publication = Publication(cluster, self._lease, time.monotonic, quiet_s=pace.quiet)
        self._controller = Controller(
            cluster=cluster,
            cache=self._cache,
            compiler=Compiler(around),
            lease=self._lease,
            publication=self._publication,
            acks=self._acks,
            log_available=lambda: log.available,
            writer=self._writer,
            clock=self._clock,
            pace=pace,
        )

        self.health = HealthServer(settings.admin.address, {"operator": self.not_ready}, {"operator": self.stuck})

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set. Raises what ended a part, in a group."""
        await self.health.start()
        try:
            async with asyncio.TaskGroup() as group:
                works = (
                    self._lister.run(),
                    self._watching(),
                    self._log_work(),
                    self._lease.run(),
                    self._writer.run(),
                    self._controller.run(),
                )
                tasks = [group.create_task(work) for work in works]
                group.create_task(_end(stop, tasks))
        finally:
            await self._stop()
            await self.health.close()

    async def _stop(self) -> None:
        try:
            async with asyncio.timeout(STOP_S):
                with contextlib.suppress(ClusterError):
                    await self._lease.release()
                await self._watch.close()
        except TimeoutError:
            _log.warning("stop.late", reason=f"not everything had ended after {STOP_S:.0f} s")

    async def _watching(self) -> None:
        """Watch from the first list on: before, the kinds may not exist."""
        await self._lister.first.wait()
        self._watch.start()
        await self._watch.watch_over()

    async def _log_work(self) -> None:
        """Connect the log, however long it is away; then hear what the pods run."""
        instance = await self._connect()
        self._publication.connect(ConfigurationPublisher(self._log, self._topics, instance))
        self._wake()
        await self._acks.run()

    async def _connect(self) -> str:
        """Start the log however long it is away, check our two topics, and return the log's id."""
        mine = (self._topics.config, self._topics.acks)
        specs = [spec for spec in self._topics.specs((), self._settings.log.partitions) if spec.name in mine]
        while True:
            try:
                await self._log.start()
                for warning in await self._log.ensure_topics(specs):
                    _log.warning("log.warning", reason=warning)
                return await self._log.instance_id()
            except LogMisconfigured:
                raise
            except LogError as error:
                _log.warning("log.waits", reason=str(error))
            await asyncio.sleep(LOG_RETRY_S)

    def _seen(self, what: str | None, document: Document) -> None:
        """Take an event of the watch."""
        if what == "DELETED":
            self._cache.remove(document)
        else:
            self._cache.put(document)
        if what is None and self._lister.first.is_set():
            self._lister.ask()
        self._wake()

    def _written(self, document: Document) -> None:
        self._cache.put(document)
        self._wake()

    def _wake(self) -> None:
        self._controller.wake()

    def not_ready(self) -> str | None:
        """A check: ready when every kind was listed and, if it is the one that publishes, it has."""
        if not self._cache.complete:
            return "not every kind was listed yet"
        if self._lease.held and not self._publication.ever:
            return "nothing was published yet"
        return None

    def stuck(self) -> str | None:
        """A check of liveness: the loop goes round, whatever is away."""
        if time.monotonic() - self._controller.last_turn > STUCK_S:
            return f"no turn for {STUCK_S:.0f} s"
        return None


async def _end(stop: asyncio.Event, tasks: Sequence[asyncio.Task[None]]) -> None:
    await stop.wait()
    for task in tasks:
        task.cancel()
