"""Watching the objects with kopf, in a thread and an event loop of its own.

Of its own, because kopf ends by cancelling every task in its loop that it did not start, and because a long
compile must not make it miss what the API server sends. Only raw events are taken: no handlers with progress, no
finalizers, no timers, and nothing is written by kopf.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import kopf
import structlog

from gatepost.core.manifest.object import GROUP, VERSION
from gatepost_operator.cluster import Document
from gatepost_operator.objects import KINDS

# A watch is renewed after this long, and given up when the API server says nothing for INACTIVE_S: it sends a
# bookmark every minute, so silence means a dead connection.
WATCH_S: Final = 240
INACTIVE_S: Final = 75.0
CONNECT_S: Final = 5.0
REQUEST_S: Final = 30.0
LIST_CHUNK: Final = 500
STOP_S: Final = 8.0

OnEvent = Callable[[str | None, Document], None]
"""Called in the main loop with ADDED, MODIFIED, DELETED, or None for what a list shows, and the object."""

_log = structlog.get_logger()


class Backoffs(Iterable[float]):
    """Waits between attempts: growing to about 15 s, then for ever; jittered, so that not all come back at once."""

    def __iter__(self) -> Iterator[float]:
        pause = 0.5
        while True:
            yield pause * random.uniform(0.5, 1.0)
            pause = min(pause * 2, 15.0)


class KopfWatch:
    """Watches our kinds in one namespace, or in all (None), from start() to close()."""

    def __init__(self, namespace: str | None, on_event: OnEvent) -> None:
        self._namespace, self._on_event = namespace, on_event
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._error = "it ended by itself"
        self._failed = asyncio.Event()

    def start(self) -> None:
        """Must be called in the main loop."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(loop,), name="kopf", daemon=True)
        self._thread.start()

    async def watch_over(self) -> None:
        """Wait until it ends by itself, which only a new process repairs, and raise RuntimeError then."""
        await self._failed.wait()
        raise RuntimeError(f"the watch has ended: {self._error}")

    async def close(self) -> None:
        self._closing.set()
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended already
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, STOP_S)

    def _run(self, main: asyncio.AbstractEventLoop) -> None:
        # It warns that signals are not its business here, which is what we want.
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
        try:
            asyncio.run(self._operate(main))
        except Exception as error:  # whatever it is: it goes to the log, and the process ends
            self._error = repr(error)
        if not self._closing.is_set():
            _log.error("watch.failed", reason=self._error)
            with contextlib.suppress(RuntimeError):  # the process is ending already
                main.call_soon_threadsafe(self._failed.set)

    async def _operate(self, main: asyncio.AbstractEventLoop) -> None:
        # An event of this loop: kopf would wait for one of a thread in a thread that outlives its own failure.
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        if self._closing.is_set():
            return
        await kopf.operator(
            registry=self._registry(main),
            settings=operator_settings(),
            standalone=True,
            clusterwide=self._namespace is None,
            namespaces=[] if self._namespace is None else [self._namespace],
            stop_flag=self._stop,
        )

    def _registry(self, main: asyncio.AbstractEventLoop) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        async def changed(event: Any, **_: Any) -> None:
            document, what = dict(event["object"]), event["type"]
            main.call_soon_threadsafe(self._on_event, what, document)

        async def login(**arguments: Any) -> Any:
            return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)

        kopf.on.login(registry=registry)(login)
        for plural in KINDS.values():
            kopf.on.event(GROUP, VERSION, plural, registry=registry)(changed)
        return registry


def operator_settings() -> kopf.OperatorSettings:
    """kopf's settings: endless retries, limits on silence, and nothing that writes."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # our kinds exist when it starts, and namespaces do not matter
    settings.watching.server_timeout = WATCH_S
    settings.watching.client_timeout = WATCH_S + 30
    settings.watching.connect_timeout = CONNECT_S
    settings.watching.inactivity_timeout = INACTIVE_S
    settings.watching.chunk_size = LIST_CHUNK
    settings.networking.request_timeout = REQUEST_S
    settings.networking.connect_timeout = CONNECT_S
    settings.networking.error_backoffs = Backoffs()
    return settings
