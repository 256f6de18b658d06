"""The DNS resolver's own: faults of servers, deadlines, the cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import dns.asyncquery
import dns.message
import pytest

from gatepost.backends.resolver_answers import mx_hosts
from gatepost.backends.resolver_dns import MAX_NEGATIVE_TTL, MAX_TTL, DnsResolver, read_response
from gatepost.core.manifest.settings import DnsSettings
from gatepost.core.ports.resolver import Answer, MxHost, NoSuchDomain, ResolverFailure
from testbed.dns import FakeDns, Fault

ZONE = """
a.test. 300 IN A 192.0.2.1
a.test. 300 IN MX 10 mx.a.test.
b.test. 60 IN A 192.0.2.2
zero.test. 0 IN A 192.0.2.3
"""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[FakeDns]:
    with FakeDns(ZONE) as server:
        yield server


@asynccontextmanager
async def a_resolver(
    *servers: FakeDns, clock: Clock | None = None, **settings: object
) -> AsyncIterator[DnsResolver]:
    values: dict[str, object] = {
        "servers": tuple(f"127.0.0.1:{server.port}" for server in servers),
        "timeout": "20s",
    }
    resolver = DnsResolver(DnsSettings(**(values | settings)), clock or Clock())  # type: ignore[arg-type]
    await resolver.start()
    try:
        yield resolver
    finally:
        await resolver.close()


# --- faults ---


async def test_a_cut_answer_is_asked_for_again_by_tcp(server: FakeDns) -> None:
    server.behave["a.test"] = Fault.TRUNCATE.value
    async with a_resolver(server) as resolver:
        assert list(await resolver.addresses("a.test")) == ["192.0.2.1"]
    assert {query.transport for query in server.seen} == {"udp", "tcp"}


async def test_large_answers_come_whole(server: FakeDns) -> None:
    server.add("".join(f'large.test. 300 IN TXT "{number} {"x" * 200}"\n' for number in range(60)))
    async with a_resolver(server) as resolver:
        assert len((await resolver.txt("large.test")).records) == 60


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.REFUSED, Fault.DROP, Fault.TRUNCATE_DROP, Fault.WRONG_ID])
async def test_a_server_with_a_fault_is_a_failure_within_the_deadline(server: FakeDns, fault: Fault) -> None:
    server.behave["a.test"] = fault.value
    async with a_resolver(server, timeout="1s") as resolver, asyncio.timeout(15):
        for question in (resolver.mx("a.test"), resolver.addresses("a.test"), resolver.txt("a.test")):
            with pytest.raises(ResolverFailure):
                await question
        server.behave.clear()
        assert list(await resolver.mx("a.test")) == [MxHost(10, "mx.a.test")]


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.REFUSED, Fault.DROP, Fault.TRUNCATE_DROP, Fault.WRONG_ID])
async def test_the_next_server_is_asked(server: FakeDns, fault: Fault) -> None:
    with FakeDns(ZONE, {"*": fault.value}) as bad:
        async with a_resolver(bad, server, timeout="2s") as resolver:
            assert list(await resolver.addresses("a.test")) == ["192.0.2.1"]
            assert bad.seen


async def test_a_dead_server_costs_its_time_only_once(server: FakeDns) -> None:
    server.add("c.test. 60 IN A 192.0.2.9")
    with FakeDns(ZONE, {"*": Fault.DROP.value}) as dead:
        async with a_resolver(dead, server, timeout="2s") as resolver:
            await resolver.query("a.test", "A")
            asked = len(dead.seen)
            await resolver.query("b.test", "A")
            await resolver.query("c.test", "A")
            assert len(dead.seen) == asked


async def test_a_server_that_is_not_there(server: FakeDns) -> None:
    with FakeDns(ZONE) as gone:
        pass
    async with a_resolver(gone, server, timeout="2s") as resolver:
        assert list(await resolver.addresses("a.test")) == ["192.0.2.1"]
    async with a_resolver(gone, timeout="2s") as resolver:
        with pytest.raises(ResolverFailure):
            await resolver.addresses("a.test")


async def test_a_connection_that_the_server_closed_is_its_failure(
    server: FakeDns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop raises RuntimeError for a write to it; the resolver's callers know ResolverFailure only."""
    server.behave["a.test"] = Fault.TRUNCATE.value

    async def closed(*_: object, **__: object) -> dns.message.Message:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    monkeypatch.setattr(dns.asyncquery, "tcp", closed)
    async with a_resolver(server) as resolver:
        with pytest.raises(ResolverFailure):
            await resolver.addresses("a.test")


async def test_one_lost_packet_is_no_failure() -> None:
    """The second round asks again."""
    with FakeDns(ZONE, {"a.test": Fault.DROP.value}) as server:
        async with a_resolver(server, timeout="2s") as resolver:
            question = asyncio.create_task(resolver.query("a.test", "A"))
            while not server.seen:
                await asyncio.sleep(0.005)
            server.behave.clear()
            assert (await question).records == ("192.0.2.1",)


async def test_a_slow_answer_within_the_deadline_is_taken(server: FakeDns) -> None:
    server.behave["a.test"] = 0.2
    async with a_resolver(server) as resolver:
        assert (await resolver.query("a.test", "A")).records == ("192.0.2.1",)


async def test_cancelling_a_question_leaves_nothing_behind(server: FakeDns) -> None:
    server.behave["a.test"] = Fault.DROP.value
    async with a_resolver(server) as resolver:
        question = asyncio.create_task(resolver.query("a.test", "A"))
        while not server.seen:
            await asyncio.sleep(0.005)
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question


# --- the cache ---


async def test_an_answer_is_kept_for_its_ttl(server: FakeDns) -> None:
    clock = Clock()
    async with a_resolver(server, clock=clock) as resolver:
        assert (await resolver.query("b.test", "A")).ttl == 60
        clock.now += 59
        assert (await resolver.query("b.test", "A")).ttl == 1
        assert server.asked("b.test") == 1
        clock.now += 2
        assert (await resolver.query("b.test", "A")).ttl == 60
        assert server.asked("b.test") == 2


async def test_a_ttl_of_zero_and_failures_are_not_kept(server: FakeDns) -> None:
    async with a_resolver(server) as resolver:
        for _ in range(2):
            await resolver.query("zero.test", "A")
        assert server.asked("zero.test") == 2
        server.behave["a.test"] = Fault.SERVFAIL.value
        with pytest.raises(ResolverFailure):
            await resolver.query("a.test", "A")
        server.behave.clear()
        assert (await resolver.query("a.test", "A")).records == ("192.0.2.1",)


async def test_the_same_question_at_the_same_time_is_asked_once(server: FakeDns) -> None:
    server.behave["a.test"] = 0.1
    async with a_resolver(server) as resolver:
        answers = await asyncio.gather(*(resolver.query("a.test", "A") for _ in range(20)))
        assert {answer.records for answer in answers} == {("192.0.2.1",)}
        assert server.asked("a.test") == 1


async def test_one_cancelled_caller_does_not_stop_the_others(server: FakeDns) -> None:
    server.behave["a.test"] = 0.1
    async with a_resolver(server) as resolver:
        first, second = (asyncio.create_task(resolver.query("a.test", "A")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).records == ("192.0.2.1",)
        assert server.asked("a.test") == 1


async def test_the_cache_is_bounded_and_drops_what_was_not_used(server: FakeDns) -> None:
    server.add("".join(f"n{number}.test. 300 IN A 192.0.2.9\n" for number in range(10)))
    async with a_resolver(server, cache_entries=3) as resolver:
        for number in (0, 1, 2, 0, 3, 0, 4):
            await resolver.query(f"n{number}.test", "A")
        assert server.asked("n0.test") == 1
        await resolver.query("n1.test", "A")
        assert server.asked("n1.test") == 2
    async with a_resolver(server, cache_entries=0) as resolver:
        for _ in range(2):
            await resolver.query("n5.test", "A")
        assert server.asked("n5.test") == 2


SOA = "test. {ttl} IN SOA ns.test. host.test. 1 2 3 4 {minimum}"


def a_response(
    *, rcode: str = "NOERROR", answer: str = "", soa: str = "", flags: str = "QR RD RA"
) -> dns.message.Message:
    lines = ["id 1", "opcode QUERY", f"rcode {rcode}", f"flags {flags}", ";QUESTION", "x.test. IN A"]
    lines += [";ANSWER", answer, ";AUTHORITY", soa]
    return dns.message.from_text("\n".join(line for line in lines if line) + "\n")


@pytest.mark.parametrize(
    ("response", "ttl", "answer"),
    [
        (a_response(rcode="NXDOMAIN", soa=SOA.format(ttl=600, minimum=300)), 300, None),
        (a_response(rcode="NXDOMAIN", soa=SOA.format(ttl=30, minimum=300)), 30, None),
        (a_response(rcode="NXDOMAIN", soa=SOA.format(ttl=90000, minimum=90000)), MAX_NEGATIVE_TTL, None),
        (a_response(rcode="NXDOMAIN"), 0, None),
        (a_response(soa=SOA.format(ttl=600, minimum=300)), 300, Answer((), 300, False, "x.test")),
        (a_response(), 0, Answer((), 0, False, "x.test")),
        (
            a_response(answer="x.test. 50 IN CNAME y.test.", soa=SOA.format(ttl=600, minimum=300)),
            50,
            Answer((), 50, False, "y.test"),
        ),
        (
            a_response(answer="x.test. 50 IN CNAME Y.test.\ny.test. 40 IN A 192.0.2.1", flags="QR RD RA AD"),
            40,
            Answer(("192.0.2.1",), 40, True, "y.test"),
        ),
        (
            a_response(answer="x.test. 9999999 IN A 192.0.2.1"),
            MAX_TTL,
            Answer(("192.0.2.1",), MAX_TTL, False, "x.test"),
        ),
    ],
)
def test_how_long_an_answer_may_be_kept(response: dns.message.Message, ttl: int, answer: Answer | None) -> None:
    assert read_response(response) == (ttl, answer)


async def test_a_no_is_kept_as_long_as_the_soa_says(server: FakeDns, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    asked = 0

    async def exchange(*_: object) -> dns.message.Message:
        nonlocal asked
        asked += 1
        return a_response(rcode="NXDOMAIN", soa=SOA.format(ttl=600, minimum=300))

    async with a_resolver(server, clock=clock) as resolver:
        monkeypatch.setattr(resolver, "_exchange", exchange)
        for _ in range(3):
            with pytest.raises(NoSuchDomain):
                await resolver.query("x.test", "A")
        assert asked == 1
        clock.now += 301
        with pytest.raises(NoSuchDomain):
            await resolver.query("x.test", "A")
        assert asked == 2


# --- settings ---


@pytest.mark.parametrize(
    "text", ["resolver.test", "", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:70000", "[::1", "[::1]:x", "192.0.2.300"]
)
def test_servers_are_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"dns\.servers"):
        DnsResolver(DnsSettings(servers=(text,)))


@pytest.mark.parametrize("text", ["192.0.2.1", "192.0.2.1:5353", "::1", "[::1]", "[::1]:5353", "2001:db8::1"])
def test_servers_may_have_ports(text: str) -> None:
    DnsResolver(DnsSettings(servers=(text,)))


@pytest.mark.parametrize("kind", ["NONSENSE", "ANY", "AXFR", ""])
async def test_types_that_cannot_be_asked_for(server: FakeDns, kind: str) -> None:
    async with a_resolver(server) as resolver:
        with pytest.raises(ValueError, match=r"type|asked"):
            await resolver.query("a.test", kind)


def test_mx_records_that_are_none() -> None:
    with pytest.raises(ResolverFailure):
        mx_hosts(Answer(("mx.test",), 1))
    assert mx_hosts(Answer(("20 a.test", "10 A.test."), 1)) == (MxHost(10, "a.test"),)
