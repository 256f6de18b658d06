"""Objects, settings and whole operators in memory, for the tests of the operator."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gatepost.backends.log_memory import MemoryLog, MemoryStorage
from gatepost.core.config_head import Ack, encode
from gatepost.core.manifest.settings import (
    AdminSettings,
    DirectorySettings,
    ListenerSettings,
    MaildirSettings,
    Role,
    Settings,
    StoreSettings,
)
from gatepost.core.ports.log import Entry
from gatepost.core.topics import Topics
from gatepost_operator.assembly import Operator
from gatepost_operator.cluster_memory import MemoryCluster
from gatepost_operator.controller import Pace
from gatepost_operator.lease import Timing

Document = dict[str, Any]

# Short enough for a test, and no verdict hangs on it: each wait is for an event.
FAST = Pace(bundle=0.0, tick=0.02, messages=0.05, settle=0.05, quiet=0.05)
QUICK = Timing(duration=1, valid=0.8, renew=0.05, retry=0.02)


def mail_domain(name: str, domain: str = "", namespace: str = "default", **spec: Any) -> Document:
    """A MailDomain with one static recipient that is thrown away, unless `spec` says otherwise."""
    return {
        "apiVersion": "gatepost.dev/v1alpha1",
        "kind": "MailDomain",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "domain": domain or f"{name}.test",
            "recipients": {"source": {"type": "Static", "addresses": ["postmaster"]}},
            "delivery": {"type": "Discard"},
            **spec,
        },
    }


def relay_policy(name: str, *listeners: str, namespace: str = "default", **spec: Any) -> Document:
    return {
        "apiVersion": "gatepost.dev/v1alpha1",
        "kind": "RelayPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"target": {"type": "Listeners", "listeners": list(listeners or ("mx",))}, **spec},
    }


@pytest.fixture(name="mail_domain")
def _mail_domain() -> Callable[..., Document]:
    return mail_domain


@pytest.fixture(name="relay_policy")
def _relay_policy() -> Callable[..., Document]:
    return relay_policy


@pytest.fixture
def settings() -> Settings:
    return Settings(
        directories={"users": DirectorySettings()},
        listeners=(ListenerSettings("mx", "127.0.0.1:0"), ListenerSettings("sub", "127.0.0.1:0", Role.SUBMISSION)),
        stores={"local": StoreSettings(maildir=MaildirSettings("mail"))},
        admin=AdminSettings("127.0.0.1:0"),
        domain_ownership={"tenant": ("tenant.example",)},
    )


async def until(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait until the condition holds and return what it gave."""
    try:
        async with asyncio.timeout(20):
            while not (found := condition()):
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never happened: {what or condition}") from None
    return found


@pytest.fixture(name="until")
def _until() -> Callable[..., Any]:
    return until


class MemoryWatch:
    """Gives an operator what a MemoryCluster says, as kopf would."""

    def __init__(self, cluster: MemoryCluster, namespace: str | None, on_event: Any) -> None:
        self.cluster, self.namespace, self._on_event = cluster, namespace, on_event
        self.blind = False
        self.failure: str | None = None
        self.failed = asyncio.Event()
        self._started = False

    def start(self) -> None:
        self._started = True
        self.again()

    def again(self) -> None:
        """What a watch shows that begins anew: what is there, not what was deleted."""
        self.blind = False
        for document in list(self.cluster.objects.values()):
            self._on_event(None, document)

    def see(self, what: str, document: Document) -> None:
        if self._started and not self.blind and self.namespace in (None, document["metadata"]["namespace"]):
            self._on_event(what, document)

    async def watch_over(self) -> None:
        await self.failed.wait()
        raise RuntimeError("the watch has ended: in a test")

    async def close(self) -> None:
        self._started = False


class World:
    """An API server and a log in memory, with any number of operators and edges."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cluster = MemoryCluster()
        self.cluster.changed = self._changed
        self.storage = MemoryStorage()
        self.topics = Topics()
        self.log = MemoryLog(self.storage)
        self.watches: list[MemoryWatch] = []
        self._numbers = itertools.count(1)
        self._running: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    async def start(self, *, timing: Timing = QUICK, pace: Pace = FAST) -> Operator:
        """Start an operator and return it."""
        stop = asyncio.Event()

        def watch(namespace: str | None, on_event: Any) -> MemoryWatch:
            self.watches.append(MemoryWatch(self.cluster, namespace, on_event))
            return self.watches[-1]

        operator = Operator(
            self.settings,
            "mail-operator",
            self.cluster,
            self.log,
            f"operator-{next(self._numbers)}",
            pace=pace,
            timing=timing,
            watch=watch,
        )
        self._running.append((stop, asyncio.create_task(operator.run(stop))))
        return operator

    async def stop(self, number: int = -1) -> None:
        """Stop an operator politely."""
        stop, task = self._running.pop(number)
        stop.set()
        await task

    async def kill(self, number: int = -1) -> None:
        """End an operator without giving it a chance to say so: its Lease stays as it is."""
        _, task = self._running.pop(number)
        away, self.cluster.away = self.cluster.away, True
        task.cancel()
        await asyncio.wait([task])
        self.cluster.away = away

    async def close(self) -> None:
        while self._running:
            await self.stop()
        await self.log.close()

    def check(self) -> None:
        """Raise what ended an operator by itself."""
        for _, task in self._running:
            if task.done():
                task.result()

    async def ack(self, pod: str, digest: str, *, service: str = "edge", error: str = "") -> None:
        """Say what a pod runs."""
        at_ms = time.time_ns() // 1_000_000
        ack = Ack(pod=pod, service=service, at_ms=at_ms, epoch=1, generation=1, hash=digest, error=error)
        await self.log.append(Entry(self.topics.acks, encode(ack), pod.encode()), 1.0)

    async def gone(self, pod: str) -> None:
        await self.log.append(Entry(self.topics.acks, None, pod.encode()), 1.0)

    def _changed(self, what: str, document: Document) -> None:
        for watch in self.watches:
            watch.see(what, document)


@pytest.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    made = World(settings)
    yield made
    await made.close()
