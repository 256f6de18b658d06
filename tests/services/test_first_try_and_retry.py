"""A message that was appended twice under one id, as after an append in doubt, is one downstream (adr/0006)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gatepost.backends.store_maildir import MaildirStore
from gatepost.core.envelope import Destination, Recipient
from gatepost.core.manifest.settings import MaildirSettings
from gatepost.core.ports.transport import HostPort, OutgoingMessage, RemoteReply, TlsUse
from gatepost.relay.recent import RecentIds

OK = RemoteReply(250, "2.0.0", "queued", "mx.b.example")
MESSAGE = b"Subject: once\r\n\r\nx\r\n"


class Hop:
    """A next hop that answers each message when `gate` is set; `replies` in turn, then OK."""

    def __init__(self, *replies: RemoteReply) -> None:
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()
        self.replies = list(replies)
        self.sent: list[OutgoingMessage] = []

    async def send(self, host: HostPort, message: OutgoingMessage, tls: TlsUse, helo: str) -> Sequence[RemoteReply]:
        self.sent.append(message)
        self.asked.set()
        await self.gate.wait()
        reply = self.replies.pop(0) if self.replies else OK
        return [reply] * len(message.recipients)

    async def close(self) -> None: ...


def twins(world: Any) -> tuple[Any, Any]:
    """The copies of the first try and of its retry: one id, but not the same bytes around it."""
    first = world.envelope("x@b.example", "y@b.example", message=MESSAGE, prepend="Received: first\r\n")
    recipients = tuple(Recipient(each.address, f"{first.id[:25]}{n}") for n, each in enumerate(first.recipients))
    destination = Destination(hosts=("[192.0.2.1]:25",), site="s")
    first = msgspec.structs.replace(first, recipients=recipients, destination=destination)
    return first, msgspec.structs.replace(
        first, prepend="Received: retry\r\n", received_ms=first.received_ms + 60_000
    )


async def test_the_relay_sends_one_when_both_come_together(world: Any, running: Any) -> None:
    """The second waits for what becomes of the first instead of being sent beside it."""
    hop, topic = Hop(), world.topics.relay
    for twin in twins(world):
        await world.put(topic, twin, MESSAGE, key=b"s")
    async with running(world.relay(hop)):
        await hop.asked.wait()
        for _ in range(100):
            await asyncio.sleep(0)  # time enough for the other to begin as well
        hop.gate.set()
        await world.finished(topic, world.topics.group("relay"), 2)
    assert len(hop.sent) == 1


async def test_the_relay_sends_one_when_they_come_apart(world: Any, running: Any) -> None:
    hop, topic = Hop(), world.topics.relay
    hop.gate.set()
    first, retry = twins(world)
    async with running(world.relay(hop)):
        await world.put(topic, first, MESSAGE, key=b"s")
        await world.finished(topic, world.topics.group("relay"), 1)
        await world.put(topic, retry, MESSAGE, key=b"s")
        await world.finished(topic, world.topics.group("relay"), 2)
    assert len(hop.sent) == 1


async def test_what_the_first_could_not_send_the_second_tries(world: Any, running: Any) -> None:
    """A twin that waits does not take a deferral for a delivery."""
    hop, topic = Hop(RemoteReply(450, "4.2.0", "later")), world.topics.relay
    for twin in twins(world):
        await world.put(topic, twin, MESSAGE, key=b"s")
    async with running(world.relay(hop)):
        hop.gate.set()
        await world.finished(topic, world.topics.group("relay"), 2)
    assert len(hop.sent) == 2


async def test_turns_never_wait_for_each_other() -> None:
    """Attempts whose ids overlap in any order all come to their end, one at a time for each id."""
    recent, running_now = RecentIds(), set[str]()

    async def attempt(*own_ids: str) -> None:
        async with recent.turn(own_ids):
            assert not running_now & set(own_ids)
            running_now.update(own_ids)
            await asyncio.sleep(0)
            running_now.difference_update(own_ids)

    async with asyncio.timeout(10):
        await asyncio.gather(*(attempt(*order) for order in ("ab", "ba", "bc", "ca", "c", "abc") * 5))


async def test_a_turn_ends_with_its_attempt() -> None:
    recent = RecentIds()
    with pytest.raises(RuntimeError):
        async with recent.turn(["a", ""]):
            raise RuntimeError("the attempt broke")
    async with asyncio.timeout(10), recent.turn(["a", ""]), recent.turn([""]):
        pass


@pytest.mark.parametrize("together", [True, False])
async def test_maildir_has_one_copy_for_each_recipient(
    world: Any, running: Any, tmp_path: Path, together: bool
) -> None:
    """Two records of one id in `accepted`, routed and stored: also when the reader has removed the first copy."""
    store = MaildirStore(MaildirSettings("mail"), tmp_path, "mx.a.example")
    await store.start()
    first = world.envelope("ann@a.example", "bob@a.example", message=MESSAGE, prepend="Received: first\r\n")
    retry = msgspec.structs.replace(
        first,
        prepend="Received: retry\r\n",
        received_ms=first.received_ms + 60_000,
        recipients=first.recipients[::-1],
    )
    topic = world.topics.mailbox("local")
    group = world.topics.group("mailbox.local")
    boxes = [tmp_path / "mail" / name / "new" for name in ("ann@a.example", "bob@a.example")]
    async with running(world.router()), running(world.mailbox(store)):
        await world.put(world.topics.accepted, first, MESSAGE)
        if not together:
            await world.finished(topic, group, 2)
            for box in boxes:
                (copy,) = box.iterdir()
                copy.unlink()
        await world.put(world.topics.accepted, retry, MESSAGE)
        await world.finished(topic, group, 4)
    await store.close()
    assert [len(list(box.iterdir())) for box in boxes] == ([1, 1] if together else [0, 0])
    assert not await world.items(world.topics.retry("1m")), "a twin was deferred for nothing"
