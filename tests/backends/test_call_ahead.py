"""Asking the next host for recipients, of a scripted SMTP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
import structlog.testing

from gatepost.backends import call_ahead
from gatepost.backends.call_ahead import CONCURRENT, SmtpCallAhead
from gatepost.core.address import parse_address
from gatepost.core.call_ahead import CallAheadPlan
from gatepost.core.ports.directory import DirectoryUnavailable
from gatepost.core.ports.transport import HostPort
from gatepost.telemetry import metrics
from testbed.smtpsink import SmtpSink

PLAN = CallAheadPlan(("next",), timeout=10.0, positive=100.0, negative=10.0, stale=1000.0)
BOB = parse_address("bob@example.test")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def sink() -> Iterator[SmtpSink]:
    with SmtpSink() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def asking(sink: SmtpSink, clock: Clock) -> AsyncIterator[SmtpCallAhead]:
    async def find(hop: str) -> Sequence[HostPort]:
        if hop == "nowhere":
            return ()
        return [HostPort(hop, "127.0.0.1", 9 if hop == "closed" else sink.port)]

    made = SmtpCallAhead(find, "mx.example.test", clock)
    yield made
    await made.close()


def only_bob(sink: SmtpSink) -> None:
    sink.script("RCPT", "250 2.1.5 yes", match="<bob@")
    sink.script("RCPT", "550 5.1.1 no such user")


def asked(sink: SmtpSink) -> list[str]:
    return [line for session in sink.sessions for line in session.commands if line.startswith("RCPT")]


async def test_who_is_taken(asking: SmtpCallAhead, sink: SmtpSink) -> None:
    only_bob(sink)
    assert await asking.takes(PLAN, BOB)
    assert not await asking.takes(PLAN, parse_address("carol@example.test"))
    commands = sink.sessions[0].commands
    assert commands[0] == "EHLO mx.example.test"
    assert commands[1].startswith("MAIL FROM:<>")
    assert not sink.transactions, "no message is sent"
    assert metrics.CALL_AHEAD.values["next", "yes"] >= 1


@pytest.mark.requirement("S2-23")
async def test_the_next_host_is_spared_and_may_be_away(asking: SmtpCallAhead, sink: SmtpSink, clock: Clock) -> None:
    """Fails without answers being kept: asking costs the primary nothing while they are fresh, and who was taken
    before is verified while it is down; who was not is never refused for good because nobody answers."""
    only_bob(sink)
    for _ in range(3):
        assert await asking.takes(PLAN, BOB)
        assert not await asking.takes(PLAN, parse_address("carol@example.test"))
    assert len([line for line in asked(sink) if "<bob@" in line]) == 1
    clock.now += 11
    assert not await asking.takes(PLAN, parse_address("carol@example.test"))
    assert len([line for line in asked(sink) if "<carol@" in line]) == 2, "a no is kept for 10 s"
    sink.clear_script()
    sink.script("CONNECT", "421 4.3.2 down", drop=True)
    clock.now += 101
    with structlog.testing.capture_logs():
        assert await asking.takes(PLAN, BOB)
        with pytest.raises(DirectoryUnavailable):
            await asking.takes(PLAN, parse_address("carol@example.test"))
        clock.now += 1000
        with pytest.raises(DirectoryUnavailable):
            await asking.takes(PLAN, BOB)


@pytest.mark.parametrize(
    ("point", "reply"),
    [
        ("RCPT", "450 4.2.0 later"),
        ("RCPT", "554 5.7.1 you are on a list"),
        ("RCPT", "552 5.2.2 mailbox full"),
        ("MAIL", "550 5.7.1 no null senders"),
        ("CONNECT", "554 5.7.1 go away"),
        ("RCPT", "what"),
    ],
)
async def test_what_decides_nothing(asking: SmtpCallAhead, sink: SmtpSink, point: str, reply: str) -> None:
    sink.script(point, reply)
    with structlog.testing.capture_logs() as lines, pytest.raises(DirectoryUnavailable):
        await asking.takes(PLAN, BOB)
    assert [line["event"] for line in lines] == ["call_ahead.failed"]


async def test_a_host_that_takes_everybody_is_found_out(
    asking: SmtpCallAhead, sink: SmtpSink, clock: Clock
) -> None:
    """A random address tells; then nobody is asked for a while, and it is told."""
    with structlog.testing.capture_logs() as lines:
        assert await asking.takes(PLAN, BOB)
    assert [line["event"] for line in lines] == ["call_ahead.takes_all"]
    assert len(asked(sink)) == 2
    before = metrics.CALL_AHEAD.values.get(("next", "takes-all"), 0)
    assert await asking.takes(PLAN, parse_address("whoever@example.test"))
    assert metrics.CALL_AHEAD.values["next", "takes-all"] == before + 1
    assert len(asked(sink)) == 2
    clock.now += call_ahead.PROBE_EVERY_S + 1
    only_bob(sink)
    assert not await asking.takes(PLAN, parse_address("whoever@example.test"))


async def test_it_is_probed_once(asking: SmtpCallAhead, sink: SmtpSink) -> None:
    sink.script("RCPT", "250 2.1.5 yes", match="<(bob|carol)@")
    sink.script("RCPT", "550 5.1.1 no such user")
    assert await asking.takes(PLAN, BOB)
    assert await asking.takes(PLAN, parse_address("carol@example.test"))
    assert len(asked(sink)) == 3


@pytest.mark.parametrize("odd", [{"hang": True}, {"drop": True}, {"reply": "450 4.7.1 too many"}])
async def test_a_probe_that_tells_nothing_changes_no_answer(
    asking: SmtpCallAhead, sink: SmtpSink, monkeypatch: pytest.MonkeyPatch, odd: dict[str, Any]
) -> None:
    monkeypatch.setattr(call_ahead, "PROBE_LIMIT_S", 0.1)
    monkeypatch.setattr("gatepost.backends.smtp_client.connection.QUIT_SECONDS", 0.1)
    sink.script("RCPT", "250 2.1.5 yes", match="<(bob|carol)@")
    sink.script("RCPT", **odd)
    assert await asking.takes(PLAN, BOB)
    assert await asking.takes(PLAN, parse_address("carol@example.test"))
    assert len(asked(sink)) == 3, "not probed again at once"


async def test_hosts_are_tried_in_order(asking: SmtpCallAhead, sink: SmtpSink) -> None:
    only_bob(sink)
    plan = CallAheadPlan(("nowhere", "closed", "next"))
    assert await asking.takes(plan, BOB)
    with structlog.testing.capture_logs(), pytest.raises(DirectoryUnavailable):
        await asking.takes(CallAheadPlan(("nowhere",)), BOB)


async def test_one_that_hangs_is_given_up(asking: SmtpCallAhead, sink: SmtpSink) -> None:
    sink.script("RCPT", hang=True)
    plan = CallAheadPlan(("next",), timeout=0.3)
    with structlog.testing.capture_logs() as lines, pytest.raises(DirectoryUnavailable):
        await asking.takes(plan, BOB)
    assert "within 0.3 s" in lines[0]["reason"] or "did not answer in time" in lines[0]["reason"]


async def test_only_so_many_questions_at_once(asking: SmtpCallAhead, sink: SmtpSink) -> None:
    """A dictionary attack here is none at the next host; what waits too long is temporary."""
    sink.script("RCPT", hang=True)
    plan = CallAheadPlan(("next",), timeout=1.0)
    addresses = [parse_address(f"u{number}@example.test") for number in range(3 * CONCURRENT)]
    with structlog.testing.capture_logs():
        waiting = asyncio.gather(*(asking.takes(plan, one) for one in addresses), return_exceptions=True)
        async with asyncio.timeout(20):
            while len(asked(sink)) < CONCURRENT:
                await asyncio.sleep(0.01)
        # Nobody has waited for `timeout` yet, so no place was given back.
        assert len(asked(sink)) == CONCURRENT
        assert {type(answer) for answer in await waiting} == {DirectoryUnavailable}


async def test_callers_that_ask_the_same_share_a_question(asking: SmtpCallAhead, sink: SmtpSink) -> None:
    only_bob(sink)
    assert await asyncio.gather(*(asking.takes(PLAN, BOB) for _ in range(10))) == [True] * 10
    assert len([line for line in asked(sink) if "<bob@" in line]) == 1


async def test_an_address_in_utf8(asking: SmtpCallAhead, sink: SmtpSink) -> None:
    address = parse_address("yamada.太郎@example.test")
    sink.script("RCPT", "550 5.1.1 no", match="<[a-z0-9]{24}@")
    assert await asking.takes(PLAN, address)
    assert sink.sessions[0].commands[1] == "MAIL FROM:<> SMTPUTF8"
    sink.keywords = ["PIPELINING"]
    assert not await asking.takes(PLAN, parse_address("山田@example.test"))


async def test_old_plans_are_forgotten(
    asking: SmtpCallAhead, sink: SmtpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plans keep apart answers; the one that was not asked by for longest has to ask again."""
    monkeypatch.setattr(call_ahead, "MOST_PLANS", 2)
    only_bob(sink)
    plans = [CallAheadPlan(("next",), timeout=10.0 + number) for number in range(3)]
    for plan in (plans[0], plans[1], plans[0], plans[2], plans[0]):
        assert await asking.takes(plan, BOB)
    assert len([line for line in asked(sink) if "<bob@" in line]) == 3
    assert await asking.takes(plans[1], BOB)
    assert len([line for line in asked(sink) if "<bob@" in line]) == 4
