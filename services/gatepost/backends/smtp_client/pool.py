"""Connections kept open for the next message to the same host, so that a list's mail costs one handshake."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from gatepost.backends.smtp_client.connection import Connection
from gatepost.backends.smtp_client.limits import Limits
from gatepost.core.ports.transport import HostPort, TlsUse


class PoolKey(msgspec.Struct, frozen=True):
    """What must be equal for a connection to be used again. The host's name is in it for its certificate."""

    host: HostPort
    tls: TlsUse
    helo: str


class _Host:
    """The connections to one host: `slots` bounds those in use, `idle` has the others, the newest last."""

    def __init__(self, connections: int) -> None:
        self.slots = asyncio.Semaphore(connections)
        self.idle: dict[Connection, asyncio.TimerHandle] = {}
        self.users = 0


class Lease(msgspec.Struct):
    """A connection in use. `reused`: it carried messages before, so that it may have been closed meanwhile."""

    key: PoolKey
    connection: Connection
    reused: bool


class Pool:
    """Belongs to one event loop. `opener` makes a connection for a key and raises HostFailure."""

    def __init__(self, opener: Callable[[PoolKey], Awaitable[Connection]], limits: Limits) -> None:
        self._opener = opener
        self._limits = limits
        self._hosts: dict[PoolKey, _Host] = {}
        self._farewells: set[asyncio.Task[None]] = set()
        self._closed = False

    async def acquire(self, key: PoolKey, *, fresh: bool = False) -> Lease:
        """Return a connection, idle or new (`fresh`: new). Waits while connections_per_host are in use."""
        host = self._hosts.setdefault(key, _Host(self._limits.connections_per_host))
        host.users += 1
        try:
            await host.slots.acquire()
            try:
                connection = None if fresh else self._idle_one(host)
                if connection is not None:
                    return Lease(key, connection, reused=True)
                # What lies idle beside a connection that was found dead is likely dead too.
                for other in list(host.idle):
                    self._retire(host, other)
                return Lease(key, await self._opener(key), reused=False)
            except BaseException:
                host.slots.release()
                raise
        except BaseException:
            self._leave(key, host)
            raise

    def release(self, lease: Lease) -> None:
        """Give a connection back; it is kept when it can carry another message."""
        host = self._hosts[lease.key]
        if lease.connection.usable and not self._closed:
            timer = asyncio.get_running_loop().call_later(
                self._limits.idle, self._expire, lease.key, lease.connection
            )
            host.idle[lease.connection] = timer
        else:
            self._say_goodbye(lease.connection)
        host.slots.release()
        self._leave(lease.key, host)

    def discard(self, lease: Lease) -> None:
        """Give back a connection that failed, or whose use was broken off."""
        lease.connection.abort()
        host = self._hosts[lease.key]
        host.slots.release()
        self._leave(lease.key, host)

    async def close(self) -> None:
        """Close what is idle; what is in use is closed when it is given back."""
        self._closed = True
        for key, host in list(self._hosts.items()):
            for connection in list(host.idle):
                self._retire(host, connection)
            self._forget_unused(key, host)
        while self._farewells:
            await asyncio.wait(set(self._farewells))

    def _idle_one(self, host: _Host) -> Connection | None:
        """The connection used last, so that the others get to expire."""
        while host.idle:
            connection, timer = host.idle.popitem()
            timer.cancel()
            if connection.usable:
                return connection
            self._say_goodbye(connection)
        return None

    def _expire(self, key: PoolKey, connection: Connection) -> None:
        host = self._hosts[key]
        self._retire(host, connection)
        self._forget_unused(key, host)

    def _retire(self, host: _Host, connection: Connection) -> None:
        host.idle.pop(connection).cancel()
        self._say_goodbye(connection)

    def _leave(self, key: PoolKey, host: _Host) -> None:
        host.users -= 1
        self._forget_unused(key, host)

    def _forget_unused(self, key: PoolKey, host: _Host) -> None:
        if not host.users and not host.idle:
            self._hosts.pop(key, None)

    def _say_goodbye(self, connection: Connection) -> None:
        task = asyncio.get_running_loop().create_task(connection.quit(), name="smtp-quit")
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)
