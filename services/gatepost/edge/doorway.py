"""Accepts connections that are no SMTP sessions yet: a PROXY header or a TLS handshake comes before the greeting.

A listener without either has none of this: its connections are sessions at once. Here each connection has a task
until it is a session; all of them count in limits.sessions, and each has its time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import structlog

from gatepost.core import smtp_replies as say
from gatepost.core.networks import NetworkSet
from gatepost.core.proxy_protocol import Proxied, ProxyError
from gatepost.edge.listener import Listener
from gatepost.edge.peer import Arrival, plain_address
from gatepost.edge.proxy import NoHeader, read_header
from gatepost.edge.session import Session
from gatepost.edge.tls import HANDSHAKE_TIMEOUT, SHUTDOWN_TIMEOUT
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from gatepost.edge.server import EdgeServer

ACCEPT_PAUSE: Final = 1.0  # s after an accept that failed (no file descriptors left), as asyncio does

_log = structlog.get_logger("gatepost.edge")


class Doorway:
    """The sockets of one listener, and the connections on their way to be sessions. open() raises OSError."""

    def __init__(self, server: EdgeServer, listener: Listener, backlog: int) -> None:
        self._server, self._listener, self._backlog = server, listener, backlog
        self._trusted = NetworkSet(listener.settings.proxy_protocol.trusted_networks)
        self._implicit = listener.settings.tls.implicit
        self._acceptors: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.sockets: list[socket.socket] = []

    @property
    def entering(self) -> int:
        """Connections that are no sessions yet."""
        return len(self._tasks)

    async def open(self) -> None:
        """Listen on every address that the host's name has."""
        loop, listener = self._server.loop, self._listener
        found = await loop.getaddrinfo(
            listener.host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, _, _, _, address in dict.fromkeys(found):
            self.sockets.append(
                _listening(family, address, self._backlog)
            )  # close() is for those made before it fails
        self._acceptors = [loop.create_task(self._accept(sock)) for sock in self.sockets]

    def close(self) -> None:
        """Accept no more, and give up what is no session yet. wait_closed() waits for the end of both."""
        for task in [*self._acceptors, *self._tasks]:
            task.cancel()

    async def wait_closed(self) -> None:
        tasks = [*self._acceptors, *self._tasks]
        if tasks:
            await asyncio.wait(tasks)
        for sock in self.sockets:
            sock.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = self._server.loop
        try:
            while True:
                try:
                    sock, peer = await loop.sock_accept(listening)
                except OSError as error:
                    _log.error("accept failed", listener=self._listener.name, reason=error.strerror)
                    await asyncio.sleep(ACCEPT_PAUSE)
                    continue
                self._take(loop, sock, plain_address(peer[0]), peer[1])
        finally:
            listening.close()

    def _take(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, peer: str, port: int) -> None:
        task = loop.create_task(self._enter(sock, peer, port))
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                sock.close()  # also of a task that never ran

        task.add_done_callback(ended)

    async def _enter(self, sock: socket.socket, peer: str, port: int) -> None:
        try:
            await self._become_session(sock, peer, port)
        except (OSError, EOFError, TimeoutError) as error:  # the client went away, or its handshake failed
            sock.close()
            _log.debug("connection lost", listener=self._listener.name, client=peer, reason=type(error).__name__)
        except Exception:
            sock.close()
            _log.exception("internal error before a session")

    async def _become_session(self, sock: socket.socket, peer: str, port: int) -> None:
        server = self._server
        sock.setblocking(False)
        if server.open_connections > server.max_sessions:
            self._turn_away(sock, peer)
            return
        proxied: Proxied | None = None
        if self._trusted:
            if peer not in self._trusted:
                self._refuse(sock, peer, port, "untrusted", "not a trusted proxy")
                return
            try:
                proxied = await read_header(server.loop, sock)
            except NoHeader:
                sock.close()
                return
            except ProxyError as error:
                self._refuse(sock, peer, port, "malformed", str(error))
                return
            except TimeoutError:
                self._refuse(sock, peer, port, "timeout", "no whole header in time")
                return
        arrival = _arrival(sock, peer, port, proxied)
        session = Session(server, self._listener, arrival)
        if self._implicit:
            await self._handshake(sock, session, arrival.client)
        else:
            await server.loop.connect_accepted_socket(lambda: session, sock)

    async def _handshake(self, sock: socket.socket, session: Session, client: str) -> None:
        listener = self._listener
        context = listener.tls_for(client)
        assert context is not None  # implicit needs a certificate (settings_rules)
        try:
            await self._server.loop.connect_accepted_socket(
                lambda: session,
                sock,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )
        except (OSError, TimeoutError) as error:
            listener.handshake_failed(client, error)
            sock.close()

    def _turn_away(self, sock: socket.socket, peer: str) -> None:
        """As many connections as may be are open: said where it can be heard, before TLS it cannot."""
        metrics.SESSIONS_ENDED.add(self._listener.name, say.TOO_MANY_SESSIONS.check)
        _log.info("refused", listener=self._listener.name, client=peer, check=say.TOO_MANY_SESSIONS.check)
        if not self._implicit:
            with contextlib.suppress(OSError):
                sock.send(say.TOO_MANY_SESSIONS.encode())
        sock.close()

    def _refuse(self, sock: socket.socket, peer: str, port: int, reason: str, why: str) -> None:
        """Nothing is answered: who sent this is not known, and it may be no mail client at all."""
        metrics.PROXY_REFUSED.add(self._listener.name, reason)
        _log.warning("proxy header refused", listener=self._listener.name, client=peer, port=port, reason=why)
        sock.close()


def _arrival(sock: socket.socket, peer: str, port: int, proxied: Proxied | None) -> Arrival:
    if proxied is not None:
        return Arrival(proxied.client, proxied.client_port, proxied.server)
    return Arrival(peer, port, plain_address(sock.getsockname()[0]))


def _listening(family: int, address: Sequence[object], backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as the loop's create_server does
        sock.setblocking(False)
        sock.bind(tuple(address))
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock
