"""edge.dns_driver: evaluations over the Resolver port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gatepost.backends.resolver_dns import DnsResolver
from gatepost.backends.resolver_table import TableResolver
from gatepost.core.authentication.questions import Asking, DnsAnswer, Known, Question, ask, together
from gatepost.core.authentication.spf import SpfStatus, check_mail_from
from gatepost.core.manifest.settings import DnsSettings
from gatepost.core.ports.resolver import Answer
from gatepost.edge.dns_driver import MAX_AT_ONCE, drive
from testbed.dns import FakeDns

FAR = 60.0


def batch(*names: str) -> Asking[tuple[DnsAnswer, ...]]:
    return (yield tuple(Question(name, "A") for name in names))


async def test_each_kind_of_answer_reaches_the_evaluation() -> None:
    resolver = (
        TableResolver().add("here.test", "A", "192.0.2.1", secure=True).add("empty.test", "A").fail("bad.test")
    )
    driven = await drive(batch("here.test", "empty.test", "nowhere.test", "bad.test"), resolver, FAR)
    assert [(answer.known, answer.records, answer.secure) for answer in driven.result] == [
        (Known.EXISTS, ("192.0.2.1",), True),
        (Known.EXISTS, (), False),
        (Known.NO_SUCH_DOMAIN, (), False),
        (Known.FAILED, (), False),
    ]
    assert (driven.questions, driven.failed) == (4, 1)


async def test_a_question_is_asked_once_in_an_evaluation() -> None:
    resolver = TableResolver().add("a.test", "A", "192.0.2.1")

    def twice() -> Asking[tuple[DnsAnswer, ...]]:
        first = yield from batch("a.test", "a.test")
        second = yield from ask("a.test", "A")
        return (*first, second)

    driven = await drive(twice(), resolver, FAR)
    assert [answer.records for answer in driven.result] == [("192.0.2.1",)] * 3
    assert resolver.asked == [("a.test", "A")]
    assert driven.questions == 1


async def test_an_evaluation_without_questions_needs_no_resolver() -> None:
    def at_once() -> Asking[int]:
        return 7
        yield ()

    assert (await drive(at_once(), TableResolver(), FAR)).result == 7


class Gate(TableResolver):
    """Answers when it is opened; counts how many wait."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.waiting = self.most = 0
        self.full = asyncio.Event()

    async def query(self, name: str, kind: str) -> Answer:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        if self.waiting == MAX_AT_ONCE:
            self.full.set()
        await self.open.wait()
        self.waiting -= 1
        return await super().query(name, kind)


async def test_questions_of_one_round_go_out_together_but_not_all_at_once() -> None:
    gate = Gate()
    running = asyncio.create_task(drive(batch(*(f"{n}.test" for n in range(25))), gate, FAR))
    await gate.full.wait()
    gate.open.set()
    driven = await running
    assert driven.questions == 25
    assert gate.most == MAX_AT_ONCE


async def test_the_deadline_ends_waiting_and_the_evaluation_ends_by_its_own_rules() -> None:
    gate = Gate()
    asking = check_mail_from("192.0.2.1", "mx.test", "a@example.test", "us.test", 0)
    driven = await drive(asking, gate, 0.01)
    assert driven.result.status is SpfStatus.TEMPERROR
    assert (driven.questions, driven.failed) == (1, 1)


async def test_after_the_deadline_nothing_is_asked() -> None:
    gate = Gate()

    def first_then_more() -> Asking[tuple[DnsAnswer, ...]]:
        yield from batch("slow.test")
        return (yield from batch("b.test", "c.test"))

    driven = await drive(first_then_more(), gate, 0.01)
    assert {answer.known for answer in driven.result} == {Known.FAILED}
    assert gate.most == 1


async def test_questions_above_the_limit_fail() -> None:
    resolver = TableResolver().add("test", "A", "192.0.2.1")
    driven = await drive(batch(*(f"{n}.test" for n in range(5))), resolver, FAR, most=3)
    assert [answer.known for answer in driven.result].count(Known.FAILED) == 2
    assert len(resolver.asked) == driven.questions == 3


async def test_cancellation_is_let_through_and_the_evaluation_is_closed() -> None:
    gate = Gate()
    closed = []

    def watched() -> Asking[None]:
        try:
            yield tuple(Question(f"{n}.test", "A") for n in range(MAX_AT_ONCE))
        finally:
            closed.append(True)

    running = asyncio.create_task(drive(watched(), gate, FAR))
    await gate.full.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert closed == [True]


async def test_evaluations_side_by_side_share_rounds() -> None:
    resolver = TableResolver().add("a.test", "A", "192.0.2.1").add("b.test", "A", "192.0.2.2")

    def chain(*names: str) -> Asking[list[str]]:
        found = []
        for name in names:
            found += (yield from ask(name, "A")).records
        return found

    def none() -> Asking[list[str]]:
        return []
        yield ()

    driven = await drive(together([chain("a.test", "b.test"), none(), chain("b.test")]), resolver, FAR)
    assert driven.result == [["192.0.2.1", "192.0.2.2"], [], ["192.0.2.2"]]


@pytest.fixture
async def dns() -> AsyncIterator[tuple[DnsResolver, FakeDns]]:
    with FakeDns('example.test. 300 IN TXT "v=spf1 exists:%{l}.w" "ho.test -all"\n') as server:
        resolver = DnsResolver(DnsSettings(servers=(f"127.0.0.1:{server.port}",), timeout="2s"))
        await resolver.start()
        yield resolver, server
        await resolver.close()


async def test_a_name_with_a_backslash_is_asked_for_as_it_is(dns: tuple[DnsResolver, FakeDns]) -> None:
    """Fails without the escape: in the port's text form it would ask for "a.b.who.test", or for nothing."""
    resolver, server = dns
    for local in ("a\\.b", "a\\065"):
        driven = await drive(
            check_mail_from("198.51.100.1", "mx.test", f"{local}@example.test", "us.test", 0), resolver, FAR
        )
        assert driven.result.status is SpfStatus.FAIL
    labels = [query.name.split(".")[0].replace("\\\\", "\\") for query in server.seen if query.type == "A"]
    assert labels == ["a\\", "a\\065"]
