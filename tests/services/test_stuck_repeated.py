"""A router that dies between its outputs and its commit, while the directory changes its mind: G2, G3 and G4."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from gatepost.backends.log_memory import MemoryLog
from gatepost.backends.store_maildir import MaildirStore
from gatepost.core.address import Address
from gatepost.core.ids import derive_id
from gatepost.core.manifest.settings import MaildirSettings
from gatepost.core.ports.directory import Entry as Account
from gatepost.core.ports.directory import EntryKind
from gatepost.core.ports.log import LogUnavailable
from gatepost.router.service import Router

WAIT_S = 10.0


class NeverCommits(MemoryLog):
    """A process whose commits do not arrive: it dies with everything that it finished uncommitted."""

    async def save_commits(self, topic: str, group: str, commits: Any) -> None:
        raise LogUnavailable("for the test")


class Groups:
    """A directory in which sales@ is a group whose members change."""

    def __init__(self, world: Any, members: list[str]) -> None:
        self.world, self.members = world, members

    async def lookup(self, address: Address) -> Account | None:
        if address.key == "team@a.example":
            return Account("team", EntryKind.GROUP, "team@a.example", ("team@a.example",))
        found: Account | None = await self.world.users.lookup(address)
        return found

    async def expand(self, group: Account) -> list[Account]:
        return [self.world.users.entries[f"{name}@a.example"] for name in self.members]


def router(world: Any, log: MemoryLog, directory: Any) -> Router:
    return world.router(log=log, directories={"users": directory})


async def test_a_step_repeated_with_another_answer_keeps_the_ids_of_what_stays(
    world: Any, running: Any, tmp_path: Path
) -> None:
    """Fails when an id depends on the order or the grouping of copies, or when inputs are finished first."""
    sent = [await world.put(world.topics.accepted, world.envelope("team@a.example")) for _ in range(5)]
    topic = world.topics.mailbox("local")
    dying = NeverCommits(world.log.storage)
    await dying.start()
    first = asyncio.create_task(router(world, dying, Groups(world, ["ann", "bob"])).run())
    before = await world.some(topic, 10)
    first.cancel()  # as kill -9: nothing of what it finished is committed
    with contextlib.suppress(asyncio.CancelledError):
        await first
    assert await world.log.committed(world.topics.accepted, world.topics.group("router")) == {}

    async with running(router(world, world.log, Groups(world, ["carol", "ann"]))):
        after = (await world.some(topic, 20))[10:]
        await world.finished(world.topics.accepted, world.topics.group("router"), 5)
    mailbox_of = {item.envelope.id: item.envelope.destination.mailbox for item in before + after}
    for envelope in sent:
        for name, count in (("ann", 2), ("bob", 1), ("carol", 1)):
            own = derive_id(envelope.id, f"{name}@a.example", "store")
            assert mailbox_of[own] == f"{name}@a.example"
            assert [item.envelope.id for item in before + after].count(own) == count

    store = MaildirStore(MaildirSettings(path="mail"), tmp_path, "mx.a.example")
    await store.start()
    service = world.mailbox(store)
    async with running(service):
        await world.finished(topic, world.topics.group("mailbox.local"), 20)
    await store.close()
    arrived = {
        name: len(list((tmp_path / f"mail/{name}@a.example/new").iterdir())) for name in ("ann", "bob", "carol")
    }
    assert arrived == {"ann": 5, "bob": 5, "carol": 5}
    await dying.close()


async def test_records_in_flight_of_a_member_that_dies_go_to_another(world: Any, running: Any) -> None:
    """It waits for its directory when it dies; what it had finished is not done again, what it had not is."""
    world.users.away = False
    names = ["ann", "bob", "carol"]
    waiting = asyncio.Event()

    class Hangs:
        async def lookup(self, address: Address) -> Account | None:
            if address.local == "bob":
                waiting.set()
                await asyncio.Event().wait()
            found: Account | None = await world.users.lookup(address)
            return found

    for name in names:
        await world.put(world.topics.accepted, world.envelope(f"{name}@a.example"))
    dying = MemoryLog(world.log.storage)
    await dying.start()
    first = asyncio.create_task(router(world, dying, Hangs()).run())
    await waiting.wait()
    await world.some(world.topics.mailbox("local"), 2)

    async def two_are_committed() -> bool:
        commits = await world.log.commits(world.topics.accepted, world.topics.group("router"))
        return (
            sum(one.position for one in commits.values()) + sum("," in one.metadata for one in commits.values())
            >= 2
        )

    async with asyncio.timeout(WAIT_S):
        while not await two_are_committed():
            await asyncio.sleep(0.01)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    async with running(router(world, world.log, world.users)):
        items = await world.some(world.topics.mailbox("local"), 3)
        await world.finished(world.topics.accepted, world.topics.group("router"), 3)
    assert sorted(item.envelope.destination.mailbox for item in items) == [f"{name}@a.example" for name in names]
    assert len(await world.items(world.topics.mailbox("local"))) == 3
    await dying.close()
