"""A memory log with all topics, users, and fakes of the ports that lead outside, for the services' tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from gatepost.backends.content_log import ContentLog
from gatepost.backends.log_memory import MemoryLog
from gatepost.backends.resolver_table import TableResolver
from gatepost.core.address import Address
from gatepost.core.compile import Surroundings, compile_manifests
from gatepost.core.envelope import VERSION, Envelope, Recipient, Trust
from gatepost.core.ids import new_id
from gatepost.core.manifest.documents import read_objects
from gatepost.core.ports.directory import DirectoryUnavailable, Entry, EntryKind
from gatepost.core.ports.events import Event
from gatepost.core.ports.log import Record
from gatepost.core.records import Item, read_item, work_entry
from gatepost.core.tables import Tables
from gatepost.core.topics import Topics
from gatepost.mailbox.service import MailboxDependencies, MailboxService
from gatepost.relay.service import RelayDependencies, RelayService
from gatepost.router.dependencies import RouterDependencies
from gatepost.router.service import Router
from gatepost.telemetry.tracing import Tracer
from gatepost.work.quarantine import Quarantine

MANIFESTS = """
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: a}
spec:
  domain: a.example
  recipients:
    source: {type: Directory, directoryRef: {name: users}}
    subaddressing: {}
    aliases:
      sales: [ann@a.example, bob@a.example, far@b.example]
      circle: [ring@a.example]
      ring: [circle@a.example]
      ann: [ann@a.example]
  outbound:
    retry: {tiers: [1m, 5m]}
"""
WAIT_S = 10.0
NOW_MS = 1_800_000_000_000


class Users:
    """A directory of a few entries that can be away."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.members: dict[str, list[str]] = {}
        self.away = False
        self.asked = asyncio.Event()

    def add(self, name: str, **more: Any) -> None:
        address = f"{name}@a.example"
        self.entries[address] = Entry(name, more.pop("kind", EntryKind.ACCOUNT), address, (address,), **more)

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    async def lookup(self, address: Address) -> Entry | None:
        self.asked.set()
        if self.away:
            raise DirectoryUnavailable("away for the test")
        return self.entries.get(address.key)

    async def expand(self, group: Entry) -> Sequence[Entry]:
        return [self.entries[f"{name}@a.example"] for name in self.members[group.name]]

    async def authenticate(self, login: str, password: str) -> Any:
        raise NotImplementedError


class Told:
    """Events that were emitted."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


class World:
    """Everything that a service under test is given, and the ways to look at what it wrote."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.topics = Topics("t.")
        self.content = ContentLog(self.log, self.topics.content_transit)
        self.kept = ContentLog(self.log, self.topics.content_kept)
        self.quarantine = Quarantine(self.topics, self.content, self.kept)
        self.users = Users()
        self.told = Told()
        self.tracer = Tracer("test")
        self.now = NOW_MS
        objects = read_objects({"t": MANIFESTS})
        around = Surroundings(directories=("users",), stores=("local", "dovecot"))
        self.tables = Tables(compile_manifests(objects.domains, objects.policies, around).configuration)

    def now_ms(self) -> int:
        return self.now

    async def start(self) -> None:
        await self.log.start()
        await self.log.ensure_topics(self.topics.specs(("local", "dovecot"), 2))
        for name in ("ann", "bob", "carol"):
            self.users.add(name)

    @property
    def shared(self) -> dict[str, Any]:
        """What every service is given."""
        return {
            "log": self.log,
            "content": self.content,
            "quarantine": self.quarantine,
            "events": self.told,
            "tracer": self.tracer,
            "topics": self.topics,
            "hostname": "mx.a.example",
            "now_ms": self.now_ms,
        }

    def router(self, **other: Any) -> Router:
        """A router with the users as its directory, unless `other` says otherwise."""
        fields = {**self.shared, "directories": {"users": self.users}, "resolver": TableResolver(), "stores": {}}
        made = Router(RouterDependencies(**(fields | other)))
        made.on_configuration(self.tables)
        return made

    def mailbox(self, store: Any, **other: Any) -> MailboxService:
        """The service of the store `local`."""
        made = MailboxService(
            MailboxDependencies(**{**self.shared, "store": store, "store_name": "local", **other})
        )
        made.on_configuration(self.tables)
        return made

    def relay(self, transport: Any, **other: Any) -> RelayService:
        fields = {**self.shared, "resolver": TableResolver(), "smtp_port": 25, "concurrent_per_site": 4}
        made = RelayService(RelayDependencies(**(fields | {"transport": transport} | other)))
        made.on_configuration(self.tables)
        return made

    def envelope(self, *recipients: str, message: bytes = b"", **more: Any) -> Envelope:
        fields: dict[str, Any] = {
            "v": VERSION,
            "id": new_id(self.now),
            "reverse_path": "sender@elsewhere.example",
            "recipients": tuple(Recipient(address) for address in recipients),
            "received_ms": self.now,
            "size": len(message),
            "trust": Trust.AUTHENTICATED,
            **more,
        }
        return Envelope(**fields)

    async def put(
        self,
        topic: str,
        envelope: Envelope,
        message: bytes = b"Subject: x\r\n\r\nbody\r\n",
        key: bytes | None = None,
    ) -> Envelope:
        await self.log.append(work_entry(topic, envelope, message, None, key), WAIT_S)
        return envelope

    async def finished(self, topic: str, group: str, count: int) -> None:
        """Wait until `count` records of a topic are committed as finished."""
        async with asyncio.timeout(WAIT_S):
            while sum((await self.log.committed(topic, group)).values()) < count:
                await asyncio.sleep(0.01)

    async def all(self, topic: str) -> list[Record]:
        follower = self.log.follower(topic)
        await follower.start()
        records: list[Record] = []
        while not follower.caught_up:
            records += await follower.fetch(0.1)
        await follower.close()
        return records

    async def items(self, topic: str) -> list[Item]:
        return [read_item(record) for record in await self.all(topic)]

    async def some(self, topic: str, count: int) -> list[Item]:
        """Wait for `count` items in a topic."""
        async with asyncio.timeout(WAIT_S):
            while len(items := await self.items(topic)) < count:
                await asyncio.sleep(0.01)
        return items


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.start()
    yield made
    await made.log.close()


class Runner:
    """Runs a service in the background and ends it."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.task = asyncio.create_task(service.run())

    async def __aenter__(self) -> Any:
        return self.service

    async def __aexit__(self, *error: object) -> None:
        self.service.stop()
        async with asyncio.timeout(WAIT_S):
            await self.task


@pytest.fixture
def running() -> type[Runner]:
    return Runner
