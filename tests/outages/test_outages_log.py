"""Kafka away in every way, for clients at every step and for mail behind the edge (one broker behind a proxy)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from testbed.faulty import Fault
from testbed.outages import ANSWER_SECONDS, RELAYED, STATIC, TOLERANCE, Row, Table, World, outage_world
from testbed.probe import Probe, Saw

pytestmark = [pytest.mark.servers, pytest.mark.lengthy]

APPEND_LIMIT_SECONDS = 8.0  # log.appendTimeout
SLOW_SECONDS = APPEND_LIMIT_SECONDS + 3.0
SLIGHTLY_SLOW_SECONDS = 0.15
BEHIND = 5  # messages on their way to each destination when the fault begins


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with outage_world(tmp_path_factory.mktemp("outages-log"), brokers=1) as made:
        yield made


def hurt(world: World, fault: str) -> Callable[[], None]:
    """Let a fault begin; the returned function ends it."""
    assert world.log is not None
    node = world.kafka.nodes[0]
    match fault:
        case "hung (SIGSTOP)":
            node.suspend()
            return node.resume
        case "killed":
            node.kill9()
            return node.start
        case "slow, over the limit":
            world.log.hurt(Fault.SLOW, SLOW_SECONDS)
        case _:
            world.log.hurt(Fault(fault))
    return world.log.heal


@pytest.mark.parametrize("fault", ["refused", "reset", "hung (SIGSTOP)", "slow, over the limit", "killed"])
def test_the_log_is_away(world: World, table: Table, fault: str) -> None:
    """No 250 without a record, 421 or 451 within 10 s, back by itself within 30 s, and nothing lost.

    Fails without the time limit of appends, the probe of the log, or readers that wait for the log.
    """
    row = table.row("Kafka", fault)
    recipient = f"ann@{STATIC}"
    with ExitStack() as stack:
        at_rcpt = stack.enter_context(Probe(world.edge.mx)).until_sender()
        at_data = stack.enter_context(Probe(world.edge.mx)).until_recipient(recipient)
        tokens = [world.token() for _ in range(2)]
        in_append, at_end = (
            stack.enter_context(Probe(world.edge.mx)).until_data(recipient, token) for token in tokens
        )
        for _ in range(BEHIND):
            for address in (recipient, f"x@{RELAYED}"):
                assert world.send(address).code == 250
        heal = hurt(world, fault)
        try:
            with ThreadPoolExecutor(1) as pool:
                appending = pool.submit(in_append.send, b".\r\n")
                row.saw("connect", turned_away(world))
                row.saw("rcpt", at_rcpt.say(f"RCPT TO:<{recipient}>"))
                row.saw("data", at_data.say("DATA"))
                late = at_end.send(b".\r\n")
                early = appending.result()
            row.saw("end", early, late)
        finally:
            heal()
    for token, saw in zip(tokens, (early, late), strict=True):
        world.note(token, saw)
    assert late.code in (421, 451), late
    row.is_back(world.until_accepted(recipient), "250 after")
    row.behind = f"{len(world.missing())} waiting"
    row.is_back(world.until_all_arrived(), "all arrived after")


def turned_away(world: World) -> Saw:
    """Connect again and again until an edge says 421; its reply, with the seconds since the first try."""
    begun = time.monotonic()
    while True:
        with Probe(world.edge.mx) as probe:
            saw = probe.greeting
        seconds = time.monotonic() - begun
        if saw.code != 220:
            return saw._replace(seconds=seconds)
        assert seconds < ANSWER_SECONDS * TOLERANCE, "the edge still greets"
        time.sleep(0.05)


def test_a_log_that_is_slow_within_the_limit_is_used(world: World, table: Table) -> None:
    """Fails when a slow log is taken for one that is away."""
    assert world.log is not None
    row = table.row("Kafka", "slow, within")
    world.log.hurt(Fault.SLOW, SLIGHTLY_SLOW_SECONDS)
    try:
        for recipient in (f"ann@{STATIC}", f"x@{RELAYED}"):
            saw = world.send(recipient)
            assert saw.code == 250, saw
        row.saw("end", saw)
        row.behind = "delivered meanwhile"
        row.is_back(world.until_all_arrived(), "delivered meanwhile, after")
    finally:
        world.log.heal()


def test_many_clients_through_short_outages(world: World, table: Table) -> None:
    """Clients that send all the time, while the log flickers: what got 250 arrives. Fails with any false 250."""
    assert world.log is not None
    row = table.row("Kafka", "refused for 1 s, three times")
    answers: list[Saw] = []
    stopping = threading.Event()

    def keep_sending() -> None:
        while not stopping.is_set():
            answers.append(world.send(f"ben@{STATIC}"))

    threads = [threading.Thread(target=keep_sending) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        world.log.hurt(Fault.REFUSED)
        time.sleep(1)
        world.log.heal()
        sent = len(world.promised)
        _more(world, sent, row)
    stopping.set()
    for thread in threads:
        thread.join()
    refused = [saw for saw in answers if saw.code != 250]
    row.saw("end", *refused)
    row.is_back(world.until_all_arrived(), "all arrived after")


def _more(world: World, before: int, row: Row) -> None:
    begun = time.monotonic()
    while len(world.promised) < before + 20:
        row.is_back(time.monotonic() - begun, "")
        row.back = ""
        time.sleep(0.05)
