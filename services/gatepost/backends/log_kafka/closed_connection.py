"""What becomes of a connection that has ended or is given up, where aiokafka leaves something undone.

A write to it is an error of the connection, under uvloop too. asyncio's transports pass over such a write, and
aiokafka expects OSError at most. uvloop's raise RuntimeError (aiokafka issue 1038), which aiokafka does not know:
it would end its heartbeats, its rebalances and, silently and for good, its task that keeps the metadata.

And before another one takes its place it is closed on our side. aiokafka forgets one whose end has been read but
not told to its reader yet: its socket stays open until garbage is collected, and whoever asked something on it
waits for the time limit of the request, some ten seconds and more, for an answer that cannot come.

A client that is cancelled while it asks for the first metadata, as by a limit or a stop, closes the connection on
which it asked. aiokafka leaves that one open as well, and nothing of its own knows it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

# The connections that a task has made in the bootstrap that it is in.
_made: Final[dict[asyncio.Task[Any] | None, list[AIOKafkaConnection]]] = {}


def mend_closed_connections() -> None:
    """Have every client of aiokafka's do all three. Again is harmless."""
    for name in ("send", "_send_sasl_token"):
        _wrap(AIOKafkaConnection, name, _telling)
    _wrap(AIOKafkaClient, "_get_conn", _closing)
    _wrap(AIOKafkaConnection, "connect", _noted)
    _wrap(AIOKafkaClient, "bootstrap", _all_or_none)


def _wrap(owner: type, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    method = getattr(owner, name)
    if not hasattr(method, "__wrapped__"):
        setattr(owner, name, wrapper(method))


def _telling(write: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(write)
    def writing(self: AIOKafkaConnection, *arguments: Any, **options: Any) -> Any:
        try:
            return write(self, *arguments, **options)
        except RuntimeError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error

    return writing


def _closing(get: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(get)
    def getting(
        self: AIOKafkaClient, node_id: Any, *, group: int = ConnectionGroup.DEFAULT, **options: Any
    ) -> Awaitable[Any]:
        connection = self._conns.get((node_id, group))
        if connection is not None and not connection.connected():
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
        return get(self, node_id, group=group, **options)

    return getting


def _noted(connect: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(connect)
    async def connecting(self: AIOKafkaConnection) -> Any:
        streams = await connect(self)
        made = _made.get(asyncio.current_task())
        if made is not None:
            made.append(self)
        return streams

    return connecting


def _all_or_none(bootstrap: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(bootstrap)
    async def bootstrapping(self: AIOKafkaClient) -> None:
        task = asyncio.current_task()
        made = _made[task] = []
        try:
            await bootstrap(self)
        except BaseException:
            for connection in made:
                connection.close(reason=CloseReason.SHUTDOWN)
            raise
        finally:
            del _made[task]

    return bootstrapping
