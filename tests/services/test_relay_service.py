"""The relay: MX rules, what each answer of a next hop leads to, retries that fall due, sites."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from gatepost.backends.resolver_table import TableResolver
from gatepost.core import event_kinds
from gatepost.core.envelope import Deferral, Destination, Recipient
from gatepost.core.ports.transport import HostFailure, HostPort, OutgoingMessage, RemoteReply, TlsUse
from gatepost.relay.retry_reader import RetryReader
from gatepost.relay.service import RelayService
from gatepost.relay.targets import NoTarget, find_targets

OK = RemoteReply(250, "2.0.0", "queued", "mx.b.example")
DNS = {
    ("b.example", "MX"): ["20 mx2.b.example.", "10 mx1.b.example."],
    ("mx1.b.example", "A"): ["192.0.2.1"],
    ("mx2.b.example", "A"): ["192.0.2.2"],
    ("mx2.b.example", "AAAA"): ["2001:db8::2"],
    ("plain.example", "A"): ["192.0.2.9"],
    ("null.example", "MX"): ["0 ."],
    ("dead.example", "MX"): ["10 nowhere.dead.example."],
    ("ours.example", "MX"): ["10 first.example.", "20 mx.a.example.", "30 later.example."],
    ("first.example", "A"): ["192.0.2.11"],
    ("later.example", "A"): ["192.0.2.12"],
    ("loop.example", "MX"): ["10 mx.a.example."],
    ("empty.example", "TXT"): ["x"],
}


def table(records: dict[tuple[str, str], list[str]]) -> TableResolver:
    made = TableResolver()
    for (name, kind), texts in records.items():
        made.add(name, kind, *texts)
    return made


class Transport:
    """Answers by address; remembers what it was asked to send."""

    def __init__(self) -> None:
        self.answers: dict[str, RemoteReply | HostFailure | list[RemoteReply]] = {}
        self.sent: list[tuple[str, OutgoingMessage]] = []

    async def send(self, host: HostPort, message: OutgoingMessage, tls: TlsUse, helo: str) -> Sequence[RemoteReply]:
        self.sent.append((host.address, message))
        answer = self.answers.get(host.address, OK)
        if isinstance(answer, HostFailure):
            raise answer
        return answer if isinstance(answer, list) else [answer] * len(message.recipients)

    async def close(self) -> None: ...


def relay(world: Any, transport: Transport, resolver: Any = None, concurrent: int = 4) -> RelayService:
    return world.relay(transport, resolver=resolver or table(DNS), concurrent_per_site=concurrent)


def copy(world: Any, *addresses: str, domain: str = "b.example", **more: Any) -> Any:
    envelope = world.envelope(*addresses, **more)
    recipients = tuple(Recipient(a, f"{envelope.id[:25]}{n}") for n, a in enumerate(addresses))
    return msgspec.structs.replace(
        envelope, recipients=recipients, destination=Destination(domain=domain, site=f"s:{domain}")
    )


@pytest.mark.parametrize(
    ("destination", "addresses"),
    [
        (Destination(domain="b.example"), ["192.0.2.1", "2001:db8::2", "192.0.2.2"]),
        (Destination(domain="plain.example"), ["192.0.2.9"]),
        (Destination(domain="ours.example"), ["192.0.2.11"]),
        (Destination(hosts=("[192.0.2.7]:26", "plain.example")), ["192.0.2.7", "192.0.2.9"]),
        (Destination(hosts=("[mx1.b.example]",)), ["192.0.2.1"]),
        (Destination(hosts=("[missing.example]", "[192.0.2.7]")), ["192.0.2.7"]),
    ],
)
async def test_targets(destination: Destination, addresses: list[str]) -> None:
    targets = await find_targets(table(DNS), destination, "mx.a.example", 25)
    assert sorted(t.address for t in targets) == sorted(addresses)
    assert targets[0].address == addresses[0] or len({t.name for t in targets}) == 1


@pytest.mark.parametrize(
    ("destination", "code", "enhanced"),
    [
        (Destination(domain="missing.example"), 550, "5.1.2"),
        (Destination(domain="empty.example"), 550, "5.1.2"),
        (Destination(domain="null.example"), 556, "5.1.10"),
        (Destination(domain="dead.example"), 451, "4.4.4"),
        (Destination(domain="loop.example"), 554, "5.4.6"),
        (Destination(hosts=("[missing.example]",)), 451, "4.4.4"),
    ],
)
async def test_no_target(destination: Destination, code: int, enhanced: str) -> None:
    with pytest.raises(NoTarget) as caught:
        await find_targets(table(DNS), destination, "mx.a.example", 25)
    assert (caught.value.reply.code, caught.value.reply.enhanced) == (code, enhanced)


async def test_dns_away_is_temporary() -> None:
    with pytest.raises(NoTarget) as caught:
        await find_targets(table(DNS).fail("b.example"), Destination(domain="b.example"), "mx.a.example", 25)
    assert caught.value.reply.code == 451


@pytest.mark.requirement("S4-54")
async def test_equal_preferences_are_taken_at_random() -> None:
    """Lowest preference first, equal ones in any order. Fails without _in_order of relay/targets.py."""
    dns = {**DNS, ("eq.example", "MX"): ["5 mx1.b.example.", "5 plain.example.", "10 later.example."]}
    firsts = set()
    for _ in range(200):
        targets = await find_targets(table(dns), Destination(domain="eq.example"), "mx.a.example", 25)
        assert targets[-1].address == "192.0.2.12"
        firsts.add(targets[0].address)
    assert firsts == {"192.0.2.1", "192.0.2.9"}


async def test_sent(world: Any, running: Any) -> None:
    transport = Transport()
    await world.put(world.topics.relay, copy(world, "x@b.example", "y@b.example", prepend="Received: r\r\n"))
    async with running(relay(world, transport)):
        await world.finished(world.topics.relay, world.topics.group("relay"), 1)
    ((address, message),) = transport.sent
    assert address == "192.0.2.1"
    assert message.prepend == b"Received: r\r\n"
    assert [r.address for r in message.recipients] == ["x@b.example", "y@b.example"]
    assert world.told.kinds() == [event_kinds.SENT, event_kinds.SENT]


async def test_who_asked_is_told_that_it_was_passed_on(world: Any, running: Any) -> None:
    """RFC 3461 5.2.2: by us where the next hop does not report, else by the next hop."""
    transport = Transport()
    transport.answers["192.0.2.1"] = [OK, msgspec.structs.replace(OK, dsn=True)]
    own = copy(world, "x@b.example", "y@b.example")
    asked = tuple(msgspec.structs.replace(recipient, notify="SUCCESS") for recipient in own.recipients)
    await world.put(world.topics.relay, msgspec.structs.replace(own, recipients=asked), b"Subject: s\r\n\r\n")
    async with running(relay(world, transport)):
        await world.finished(world.topics.relay, world.topics.group("relay"), 1)
    assert [recipient.notify for recipient in transport.sent[0][1].recipients] == ["SUCCESS"] * 2
    (told,) = await world.all(world.topics.accepted)
    assert b"Final-Recipient: rfc822; x@b.example\r\nAction: relayed" in told.value
    assert b"y@b.example" not in told.value
    assert b"Subject: s" in told.value


async def test_the_next_host_is_tried_when_one_fails(world: Any, running: Any) -> None:
    transport = Transport()
    transport.answers["192.0.2.1"] = HostFailure(RemoteReply(421, "4.3.2", "busy"))
    await world.put(world.topics.relay, copy(world, "x@b.example"))
    async with running(relay(world, transport)):
        await world.finished(world.topics.relay, world.topics.group("relay"), 1)
    assert transport.sent[0][0] == "192.0.2.1"
    assert len(transport.sent) == 2
    assert world.told.kinds() == [event_kinds.SENT]


async def test_each_recipient_has_its_own_fate(world: Any, running: Any) -> None:
    transport = Transport()
    transport.answers["192.0.2.1"] = [
        OK,
        RemoteReply(450, "4.2.0", "later", "mx1.b.example"),
        RemoteReply(550, "5.1.1", "who?", "mx1.b.example"),
    ]
    await world.put(world.topics.relay, copy(world, "x@b.example", "y@b.example", "z@b.example"))
    async with running(relay(world, transport)):
        (later,) = await world.some(world.topics.retry("1m"), 1)
        (dsn,) = await world.some(world.topics.accepted, 1)
    assert [r.address for r in later.envelope.recipients] == ["y@b.example"]
    assert b"Final-Recipient: rfc822; z@b.example" in dsn.inline
    assert sorted(world.told.kinds()) == sorted([event_kinds.SENT, event_kinds.DEFERRED, event_kinds.FAILED])


async def test_all_hosts_away_is_a_deferral_never_a_failure(world: Any, running: Any) -> None:
    transport = Transport()
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::2"):
        transport.answers[address] = HostFailure(RemoteReply(554, "5.7.1", "go away"))
    await world.put(world.topics.relay, copy(world, "x@b.example"))
    async with running(relay(world, transport)):
        (later,) = await world.some(world.topics.retry("1m"), 1)
    assert later.envelope.deferral.last_reply == "451 4.4.1 go away"


async def test_a_dead_site_is_not_tried_for_each_message(world: Any, running: Any) -> None:
    transport = Transport()
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::2"):
        transport.answers[address] = HostFailure(RemoteReply(451, "4.4.1", "no route"))
    for n in range(10):
        await world.put(world.topics.relay, copy(world, f"x{n}@b.example"), key=b"s")
    async with running(relay(world, transport, concurrent=1)):
        await world.some(world.topics.retry("1m"), 10)
    assert len(transport.sent) == 9  # three attempts on three addresses, then the breaker is open


async def test_a_large_deferred_body_waits_in_content(world: Any, running: Any) -> None:
    transport = Transport()
    transport.answers["192.0.2.1"] = RemoteReply(450, "4.0.0", "later")
    message = b"Subject: x\r\n\r\n" + b"y" * 20_000
    await world.put(world.topics.relay, copy(world, "x@b.example"), message)
    async with running(relay(world, transport)):
        (later,) = await world.some(world.topics.retry("1m"), 1)
    assert later.inline == b""
    assert (await world.content.read(later.envelope.content, 5)).whole() == message


async def test_a_record_that_comes_again_is_not_sent_twice(world: Any, running: Any) -> None:
    transport = Transport()
    envelope = copy(world, "x@b.example")
    await world.put(world.topics.relay, envelope, key=b"s")
    await world.put(world.topics.relay, envelope, key=b"s")
    async with running(relay(world, transport, concurrent=1)):
        await world.finished(world.topics.relay, world.topics.group("relay"), 2)
    assert len(transport.sent) == 1


@pytest.mark.requirement("S1-10")
async def test_a_deferred_copy_returns_when_it_is_due(world: Any, running: Any) -> None:
    """Not before its tier's time, then to its work topic. Fails without relay/retry_reader.py."""
    envelope = copy(world, "x@b.example")
    deferral = Deferral(attempts=1, return_topic=world.topics.relay)
    await world.put(world.topics.retry("1m"), msgspec.structs.replace(envelope, deferral=deferral), key=b"k")
    (record,) = await world.all(world.topics.retry("1m"))
    world.now = record.timestamp_ms + 59_000
    async with running(RetryReader(world.log, world.topics, world.quarantine, world.now_ms)):
        (returned,) = await world.some(world.topics.relay, 1)
    assert returned.envelope.recipients == envelope.recipients
    after = await world.all(world.topics.relay)
    assert after[0].timestamp_ms - record.timestamp_ms >= 900


async def test_stopping_leaves_what_is_not_due(world: Any, running: Any) -> None:
    deferral = Deferral(attempts=1, return_topic=world.topics.relay)
    envelope = msgspec.structs.replace(copy(world, "x@b.example"), deferral=deferral)
    await world.put(world.topics.retry("4h"), envelope)
    world.now = 0
    async with running(RetryReader(world.log, world.topics, world.quarantine, world.now_ms)):
        await asyncio.sleep(0)
    assert await world.items(world.topics.relay) == []
    assert sum((await world.log.committed(world.topics.retry("4h"), world.topics.group("retry.4h"))).values()) == 0


async def test_552_to_rcpt_is_temporary(world: Any, running: Any) -> None:
    transport = Transport()
    transport.answers["192.0.2.1"] = RemoteReply(552, "5.5.3", "too many", "mx1.b.example", "RCPT")
    await world.put(world.topics.relay, copy(world, "x@b.example"))
    async with running(relay(world, transport)):
        (later,) = await world.some(world.topics.retry("1m"), 1)
    assert later.envelope.deferral.last_reply == "452 4.5.3 too many"
