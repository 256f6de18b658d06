"""The router: each accepted recipient becomes its final copies, durably, however often a step is repeated."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from gatepost.backends.resolver_table import TableResolver
from gatepost.core import event_kinds
from gatepost.core.envelope import Client, Trust
from gatepost.core.ids import derive_id
from gatepost.core.memory_body import MemoryBody
from gatepost.core.ports.directory import EntryKind
from gatepost.router.service import SKEW_MS, Router

WAIT_S = 10.0


def table(records: dict[tuple[str, str], list[str]]) -> TableResolver:
    made = TableResolver()
    for (name, kind), texts in records.items():
        made.add(name, kind, *texts)
    return made


def router(world: Any, **records: Any) -> Router:
    return world.router(resolver=table(records.get("dns", {})), stores={"dovecot.a.example": "dovecot"})


async def test_a_local_recipient_goes_to_its_store(world: Any, running: Any) -> None:
    sent = await world.put(world.topics.accepted, world.envelope("Bob@a.example"), b"Subject: x\r\n\r\nhi\r\n")
    async with running(router(world)):
        (item,) = await world.some(world.topics.mailbox("local"), 1)
    assert item.inline == b"Subject: x\r\n\r\nhi\r\n"
    assert item.envelope.destination.mailbox == "bob@a.example"
    assert item.envelope.id == derive_id(sent.id, "bob@a.example", "store")
    assert item.envelope.parent == sent.id
    assert item.envelope.recipients[0].original == "Bob@a.example"


@pytest.mark.requirement("S4-1")
async def test_the_directory_holds_where_mail_is_delivered(world: Any, running: Any) -> None:
    """mailHost chooses store or host, a routing address rewrites. Fails without core/routing.py's LDAP part."""
    world.users.add("dora", mail_host="dovecot.a.example")
    world.users.add("remote", mail_host="other.example")
    world.users.add("moved", routing_address="new@b.example")
    envelope = world.envelope("dora@a.example", "remote@a.example", "moved@a.example")
    await world.put(world.topics.accepted, envelope)
    async with running(router(world)):
        (stored,) = await world.some(world.topics.mailbox("dovecot"), 1)
        relayed = await world.some(world.topics.relay, 2)
    assert stored.envelope.destination.mailbox == "dora@a.example"
    routes = {i.envelope.recipients[0].address: i.envelope.destination for i in relayed}
    assert routes["remote@a.example"].hosts == ("[other.example]",)
    assert routes["new@b.example"].domain == "b.example"


async def test_an_alias_becomes_its_targets_once_each(world: Any, running: Any) -> None:
    await world.put(world.topics.accepted, world.envelope("sales@a.example", "bob@a.example", "ann@a.example"))
    async with running(router(world)):
        stored = await world.some(world.topics.mailbox("local"), 2)
        (relayed,) = await world.some(world.topics.relay, 1)
    assert sorted(i.envelope.destination.mailbox for i in stored) == ["ann@a.example", "bob@a.example"]
    assert [r.address for r in relayed.envelope.recipients] == ["far@b.example"]
    assert relayed.envelope.prepend.startswith("Delivered-To: sales@a.example\r\n")


async def test_a_group_becomes_its_members(world: Any, running: Any) -> None:
    world.users.add("staff", kind=EntryKind.GROUP)
    world.users.members["staff"] = ["ann", "carol"]
    await world.put(world.topics.accepted, world.envelope("staff@a.example"))
    async with running(router(world)):
        stored = await world.some(world.topics.mailbox("local"), 2)
    assert sorted(i.envelope.destination.mailbox for i in stored) == ["ann@a.example", "carol@a.example"]


async def test_aliases_in_a_circle_fail_with_a_dsn(world: Any, running: Any) -> None:
    await world.put(world.topics.accepted, world.envelope("circle@a.example", reverse_path="ann@a.example"))
    async with running(router(world)):
        stored = await world.some(world.topics.mailbox("local"), 1)
    assert stored[0].envelope.reverse_path == ""
    assert b"Status: 5.4.6" in stored[0].inline


async def test_a_forwarding_loop_is_seen_by_delivered_to(world: Any, running: Any) -> None:
    message = b"Delivered-To: sales@a.example\r\nSubject: x\r\n\r\nhi\r\n"
    envelope = world.envelope("sales@a.example", reverse_path="carol@a.example")
    await world.put(world.topics.accepted, envelope, message)
    async with running(router(world)):
        stored = await world.some(world.topics.mailbox("local"), 3)
    assert await world.items(world.topics.relay) == []
    assert any(b"Status: 5.4.6" in item.inline for item in stored)


@pytest.mark.requirement("S4-60")
async def test_recipients_that_share_an_mx_are_joined(world: Any, running: Any) -> None:
    """Two domains with one MX set make one record. Fails without sites in the router."""
    dns = {("b.example", "MX"): ["10 mx.shared."], ("c.example", "MX"): ["5 mx.shared."]}
    await world.put(world.topics.accepted, world.envelope("x@b.example", "y@c.example", "z@b.example"))
    async with running(router(world, dns=dns)):
        (item,) = await world.some(world.topics.relay, 1)
        await world.finished(world.topics.accepted, world.topics.group("router"), 1)
    assert [r.address for r in item.envelope.recipients] == ["x@b.example", "y@c.example", "z@b.example"]
    assert len(await world.items(world.topics.relay)) == 1


async def test_at_most_500_recipients_in_a_record(world: Any, running: Any) -> None:
    await world.put(world.topics.accepted, world.envelope(*(f"u{n}@b.example" for n in range(1001))))
    async with running(router(world)):
        items = await world.some(world.topics.relay, 3)
    assert sorted(len(i.envelope.recipients) for i in items) == [1, 500, 500]


async def test_an_unknown_user_gets_a_dsn_and_a_stranger_does_not(world: Any, running: Any) -> None:
    await world.put(world.topics.accepted, world.envelope("gone@a.example", reverse_path="ann@a.example"))
    stranger = world.envelope("gone@a.example", trust=Trust.UNVERIFIED)
    await world.put(world.topics.accepted, stranger)
    async with running(router(world)):
        (dsn,) = await world.some(world.topics.mailbox("local"), 1)
        (kept,) = await world.some(world.topics.quarantine, 1)
    assert dsn.envelope.destination.mailbox == "ann@a.example"
    assert b"Status: 5.1.1" in dsn.inline
    assert kept.envelope.recipients[0].address == "sender@elsewhere.example"


async def test_it_waits_while_the_directory_is_away(world: Any, running: Any) -> None:
    world.users.away = True
    await world.put(world.topics.accepted, world.envelope("bob@a.example"))
    async with running(router(world)):
        async with asyncio.timeout(WAIT_S):
            await world.users.asked.wait()
        assert await world.items(world.topics.mailbox("local")) == []
        world.users.away = False
        await world.some(world.topics.mailbox("local"), 1)
    assert world.told.kinds() == [event_kinds.ROUTED]


async def test_what_is_unfinished_comes_again_with_the_same_ids(world: Any, running: Any) -> None:
    """Two routers one after the other, the first stopped while it waits."""
    world.users.away = True
    sent = await world.put(world.topics.accepted, world.envelope("bob@a.example"))
    async with running(router(world)):
        async with asyncio.timeout(WAIT_S):
            await world.users.asked.wait()
    world.users.away = False
    async with running(router(world)):
        (item,) = await world.some(world.topics.mailbox("local"), 1)
    assert item.envelope.id == derive_id(sent.id, "bob@a.example", "store")


async def test_an_unreadable_record_is_quarantined_with_the_reason(world: Any, running: Any) -> None:
    from gatepost.core.ports.log import Entry

    await world.log.append(Entry(world.topics.accepted, b"no envelope"), WAIT_S)
    async with running(router(world)):
        await world.finished(world.topics.accepted, world.topics.group("router"), 1)
    (record,) = await world.all(world.topics.quarantine)
    assert record.value == b"no envelope"
    assert b"no envelope" in (record.header("reason") or b"")


async def test_what_the_edge_verified_is_waited_for(world: Any, running: Any) -> None:
    """A user who is new at the edge is no bounce because this process's directory is older."""
    envelope = world.envelope("new@a.example", client=Client(listener="mx"), reverse_path="ann@a.example")
    await world.put(world.topics.accepted, envelope)
    async with running(router(world)):
        async with asyncio.timeout(WAIT_S):
            await world.users.asked.wait()
        world.users.add("new")
        (item,) = await world.some(world.topics.mailbox("local"), 1)
    assert item.envelope.destination.mailbox == "new@a.example"


async def test_but_not_for_ever(world: Any, running: Any) -> None:
    old = world.envelope(
        "gone@a.example",
        client=Client(listener="mx"),
        reverse_path="ann@a.example",
        received_ms=world.now - SKEW_MS - 1,
    )
    await world.put(world.topics.accepted, old)
    async with running(router(world)):
        (dsn,) = await world.some(world.topics.mailbox("local"), 1)
    assert b"Status: 5.1.1" in dsn.inline


async def test_a_body_that_is_lost_is_quarantined(world: Any, running: Any) -> None:
    """A DSN needs the header, and the body fails its checksum: an alarm, not an endless repetition."""
    reference = await world.content.write("id", MemoryBody(b"Subject: x\r\n\r\n" + b"y" * 100_000), WAIT_S)
    wrong = msgspec.structs.replace(reference, sha256="0" * 64)
    await world.put(world.topics.accepted, world.envelope("gone@a.example", content=wrong), b"")
    async with running(router(world)):
        await world.finished(world.topics.accepted, world.topics.group("router"), 1)
    (record,) = await world.all(world.topics.quarantine)
    assert b"cannot be read back" in (record.header("reason") or b"")
