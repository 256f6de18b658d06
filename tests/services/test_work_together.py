"""Records of one batch share their appends, yet none can hold up or harm another."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

import pytest

from gatepost.core.address import Address
from gatepost.core.ids import derive_id
from gatepost.core.ports.directory import DirectoryUnavailable
from gatepost.core.ports.directory import Entry as Account
from gatepost.core.ports.log import Entry, LogUnavailable, Position, Record
from gatepost.work.at_once import WouldWait, at_once
from gatepost.work.loop import WorkLoop

WAIT_S = 10.0


async def test_a_step_without_a_wait_is_done_at_once() -> None:
    async def step() -> int:
        return 7

    assert at_once(step()) == 7


async def test_a_step_that_has_to_wait_is_given_up_and_can_be_repeated() -> None:
    answer = asyncio.get_running_loop().create_future()

    async def step() -> str:
        return await asyncio.shield(answer)

    with pytest.raises(WouldWait):
        at_once(step())
    answer.set_result("later")
    assert await step() == "later"


async def test_what_a_step_raises_comes_through() -> None:
    async def step() -> None:
        raise DirectoryUnavailable("away")

    with pytest.raises(DirectoryUnavailable):
        at_once(step())


async def test_a_failed_answer_after_giving_up_is_nobodys_error() -> None:
    """asyncio would report an exception that nobody has retrieved. Fails without the callback in at_once."""
    loop = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    answer = loop.create_future()

    async def step() -> None:
        await asyncio.shield(answer)

    with pytest.raises(WouldWait):
        at_once(step())
    answer.set_exception(DirectoryUnavailable("away"))
    answer.exception()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    assert reported == []


class Waiting:
    """A directory that keeps the question for one name waiting; the others are answered at once."""

    def __init__(self, users: Any, slow: str) -> None:
        self._users, self._slow = users, slow
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def lookup(self, address: Address) -> Account | None:
        if address.local == self._slow:
            self.asked.set()
            await self.go_on.wait()
        found: Account | None = await self._users.lookup(address)
        return found


class FailsTogether:
    """Appends of more than one entry fail as often as it is told to; what was appended is counted."""

    def __init__(self, log: Any, failures: int) -> None:
        self._log, self.failures = log, failures
        self.calls: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append_many(self, entries: Sequence[Entry], limit: float) -> Sequence[Position]:
        self.calls.append(len(entries))
        if len(entries) > 1 and self.failures:
            self.failures -= 1
            raise LogUnavailable("for the test")
        result: Sequence[Position] = await self._log.append_many(entries, limit)
        return result


async def put(world: Any, *names: str) -> list[Any]:
    return [await world.put(world.topics.accepted, world.envelope(f"{name}@a.example")) for name in names]


async def test_records_that_come_together_are_appended_together(world: Any, running: Any) -> None:
    log = FailsTogether(world.log, 0)
    sent = await put(world, *["ann", "bob", "carol"] * 5)
    async with running(world.router(log=log)):
        items = await world.some(world.topics.mailbox("local"), len(sent))
        await world.finished(world.topics.accepted, world.topics.group("router"), len(sent))
    assert {item.envelope.parent for item in items} == {envelope.id for envelope in sent}
    assert len(log.calls) < len(sent) / 2


async def test_one_waits_for_the_directory_and_the_others_go_on(world: Any, running: Any) -> None:
    directory = Waiting(world.users, "bob")
    await put(world, "ann", "bob", "carol", "bob", "ann")
    async with running(world.router(directories={"users": directory})):
        stored = await world.some(world.topics.mailbox("local"), 3)
        assert sorted(i.envelope.destination.mailbox for i in stored) == [
            "ann@a.example",
            "ann@a.example",
            "carol@a.example",
        ]
        assert directory.asked.is_set()
        directory.go_on.set()
        await world.finished(world.topics.accepted, world.topics.group("router"), 5)
    assert len(await world.items(world.topics.mailbox("local"))) == 5


async def test_a_shared_append_that_failed_is_done_one_by_one(world: Any, running: Any) -> None:
    """Nothing is lost, nothing is finished before it is durable, and the ids are those of the first attempt."""
    log = FailsTogether(world.log, 1)
    sent = await put(world, "ann", "bob", "carol")
    async with running(world.router(log=log)):
        items = await world.some(world.topics.mailbox("local"), 3)
        await world.finished(world.topics.accepted, world.topics.group("router"), 3)
    assert log.failures == 0
    wanted = {derive_id(e.id, e.recipients[0].address, "store") for e in sent}
    assert {item.envelope.id for item in items} == wanted
    assert len(world.told.events) == 3


async def test_a_fault_in_a_batch_harms_only_its_own_record(world: Any, running: Any) -> None:
    """The handler fails at one record: the others are finished, and no finished one is handled again."""
    seen: list[bytes] = []

    async def handle(consumer: Any, records: Sequence[Record]) -> None:
        for record in records:
            if record.value == b"bad":
                raise RuntimeError("for the test")
            seen.append(record.value)
            consumer.finish(record)

    values = [b"1", b"2", b"bad", b"3", b"4"]
    for value in values:
        await world.log.append(Entry(world.topics.relay, value, partition=0), WAIT_S)
    async with (
        running(WorkLoop(world.log, world.topics.relay, "g", handle, world.quarantine, batch=10)),
        asyncio.timeout(WAIT_S),
    ):
        while len(seen) < 4:
            await asyncio.sleep(0.01)
    assert sorted(seen) == [b"1", b"2", b"3", b"4"]
    assert await world.log.committed(world.topics.relay, "g") == {0: 2, 1: 0}
