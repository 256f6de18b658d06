"""The edge as a whole: its listeners and sessions, the limits they share, and starting, draining and closing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final

import structlog

from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.manifest.quantities import seconds, size_bytes
from gatepost.core.tables import Tables
from gatepost.edge.acceptance import Acceptor
from gatepost.edge.access import AccessBook
from gatepost.edge.bans import Bans
from gatepost.edge.challenges import Challenges
from gatepost.edge.dependencies import EdgeDependencies
from gatepost.edge.doorway import Doorway
from gatepost.edge.listener import Listener
from gatepost.edge.listing_watch import ListingWatch
from gatepost.edge.lists import Lists
from gatepost.edge.memory import Memory
from gatepost.edge.rates import Accepted
from gatepost.edge.session import Session
from gatepost.edge.shadow import Shadows
from gatepost.telemetry import metrics

__all__ = ["EdgeDependencies", "EdgeServer"]

BACKLOG: Final = 1024  # connections that wait in the kernel during a burst
WATCH_EVERY: Final = 1.0  # s; no limit of a session is so short that this would matter
CERTIFICATES_EVERY: Final = 10  # watches
# After a drain or at close: an append has its own limit, which comes first.
CLOSE_GRACE: Final = 2.0

_log = structlog.get_logger("gatepost.edge")


class EdgeServer:
    """Serves every listener of the settings.

    Until on_configuration() was called, clients get 421 4.3.2. start() raises OSError when an address cannot be
    listened on, and TlsError for a certificate that cannot be used. drain() and close() may be called in any order
    and again; an append that has begun is waited for by both.
    """

    def __init__(self, deps: EdgeDependencies) -> None:
        settings = deps.settings
        self.deps = deps
        self.hostname = settings.hostname or socket.getfqdn()
        self.greeting = f"220 {self.hostname} ESMTP Gatepost\r\n".encode()
        self.helo_reply = f"250 {self.hostname}\r\n".encode()
        self.own_names = _own_names(self.hostname)
        self.max_sessions = settings.limits.sessions
        self.minimum_rate = settings.limits.minimum_bytes_per_second
        self.memory = Memory(size_bytes(settings.limits.memory_for_bodies))
        self.acceptor = Acceptor(deps, self.hostname)
        self.access = AccessBook(deps.access, self._rights_changed)
        self.bans = Bans(deps.state, deps.now_ms)
        self.accepted = Accepted()
        self.challenges = Challenges()
        self.shadows = Shadows()
        self.sessions: set[Session] = set()
        self.draining = False
        self.loop: asyncio.AbstractEventLoop
        self._tables: Tables | None = None
        self._listeners: dict[str, Listener] = {}
        self._sockets: dict[str, asyncio.Server | Doorway] = {}
        self._doorways: dict[str, Doorway] = {}
        self._addresses: dict[str, tuple[str, int]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self.lists = Lists(deps.resolver)
        self.listings = ListingWatch(deps, self.lists)
        self._empty = asyncio.Event()
        self._empty.set()

    # -- life

    async def start(self) -> None:
        """Listen on every address."""
        self.loop = asyncio.get_running_loop()
        for settings in self.deps.settings.listeners:
            listener = Listener(settings)
            listener.configure(self._tables.listeners.get(settings.name) if self._tables else None)
            self._listeners[settings.name] = listener
        try:
            for listener in self._listeners.values():
                await self._listen(listener)
        except BaseException:
            await self.close()
            raise
        self._show_limits()
        self._watcher = self.loop.create_task(self._watch())

    def _show_limits(self) -> None:
        """What is in use of each limit of the process, beside the limit."""
        metrics.BODY_MEMORY.read = lambda: {(): self.memory.reserved}
        metrics.BODY_MEMORY_LIMIT.set(self.memory.cap)
        metrics.BODY_MEMORY_WAITING.read = lambda: {(): self.memory.waiting}
        metrics.SESSIONS_LIMIT.set(self.max_sessions)

    async def _listen(self, listener: Listener) -> None:
        if listener.settings.tls.implicit or listener.settings.proxy_protocol.trusted_networks:
            doorway = Doorway(self, listener, BACKLOG)
            self._sockets[listener.name] = self._doorways[listener.name] = doorway
            await doorway.open()
        else:
            self._sockets[listener.name] = await self.loop.create_server(
                lambda: Session(self, listener), listener.host, listener.port, backlog=BACKLOG
            )
        host, port = self._sockets[listener.name].sockets[0].getsockname()[:2]
        self._addresses[listener.name] = host, port
        _log.info("listening", listener=listener.name, address=f"{host}:{port}", role=listener.settings.role.value)

    def address(self, listener: str) -> tuple[str, int]:
        """The host and port that a listener is bound to (where its address says port 0)."""
        return self._addresses[listener]

    def port(self, listener: str) -> int:
        return self.address(listener)[1]

    def not_ready(self) -> str | None:
        """Why no more connections should be sent here, or None. The log and directories do not count."""
        if self.draining:
            return "shutting down"
        if not self._sockets:
            return "not listening yet"
        without = [name for name, listener in self._listeners.items() if listener.table is None]
        return f"no configuration for {', '.join(without)}" if without else None

    async def drain(self) -> None:
        """Take no new connections, end idle sessions with 421, let messages finish; at most limits.drain."""
        self.draining = True
        self._stop_listening()
        for session in list(self.sessions):
            session.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds(self.deps.settings.limits.drain)):
                await self._empty.wait()
        if self.sessions:
            _log.warning("drain ended with sessions open", sessions=len(self.sessions))

    async def close(self) -> None:
        """Close every connection now; appends that have begun end first, within their own limit."""
        self.draining = True
        self._stop_listening()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
            self._watcher = None
        await self.listings.close()
        for doorway in self._doorways.values():
            await doorway.wait_closed()
        tasks = []
        for session in list(self.sessions):
            session.abort()
            if session.task is not None:
                tasks.append(session.task)
                if not session.shielded:
                    session.task.cancel()
        if tasks:
            limit = seconds(self.deps.settings.log.append_timeout) + CLOSE_GRACE
            _, late = await asyncio.wait(tasks, timeout=limit)
            for task in late:
                task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_GRACE):
                await self._empty.wait()
        await self.shadows.close()
        await self.acceptor.in_doubt.close(CLOSE_GRACE)

    def _stop_listening(self) -> None:
        for server in self._sockets.values():
            server.close()

    # -- configuration

    @property
    def tables(self) -> Tables:
        """The configuration in force. Raises LookupError before the first one."""
        if self._tables is None:
            raise LookupError("there is no configuration yet")
        return self._tables

    def on_configuration(self, tables: Tables) -> None:
        """Put a configuration in force: for new connections and transactions at once, running ones keep theirs."""
        self._tables = tables
        self.access.configure(tables)
        self.listings.configured(tables)
        for name, listener in self._listeners.items():
            listener.configure(tables.listeners.get(name))
        self._rights_changed()

    def _rights_changed(self) -> None:
        for session in list(self.sessions):
            session.configuration_changed(self.tables, session.listener.table_for(session.client))

    # -- sessions

    @property
    def open_connections(self) -> int:
        """Sessions, and connections that are on their way to be one."""
        return len(self.sessions) + sum(doorway.entering for doorway in self._doorways.values())

    def forget(self, session: Session) -> None:
        self.sessions.discard(session)
        if not self.sessions:
            self._empty.set()

    def remember(self, session: Session) -> None:
        self.sessions.add(session)
        self._empty.clear()

    def sweep(self, now: float) -> None:
        """End the sessions whose time is over at `now` (the loop's time).

        One pass a second over all of them is cheaper than a timer for each command.
        """
        for session in list(self.sessions):
            session.watch(now)

    async def _watch(self) -> None:
        rounds = 0
        while True:
            await asyncio.sleep(WATCH_EVERY)
            rounds += 1
            try:
                self.sweep(self.loop.time())
                if rounds % CERTIFICATES_EVERY == 0:
                    self.refresh_certificates()
            except Exception:
                _log.exception("internal error while watching sessions")

    def refresh_certificates(self) -> None:
        """Load certificates again whose files have changed."""
        for listener in self._listeners.values():
            if listener.tls is not None:
                listener.tls.refresh()


def _own_names(hostname: str) -> frozenset[str]:
    try:
        return frozenset({canonical_domain(hostname)})
    except DomainError:
        return frozenset()
