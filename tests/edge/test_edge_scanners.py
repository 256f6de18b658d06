"""Scanners while a message comes and behind its final dot: limits, and what a slow or lying one cannot do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest

from gatepost.core.checks.scanners import ScannerPolicy
from gatepost.core.checks.spam_traps import SpamTrapPolicy
from gatepost.core.configuration_content import ContentPolicy
from gatepost.core.manifest.actions import OnError
from gatepost.core.manifest.relay_policy import RequireFor
from gatepost.core.ports.scanner import Advice, ScanFacts, ScannerAddress, ScannerKind, ScanResult
from gatepost.edge.scanning import MOST_HELD
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import Client, MakeEdge

CLEAN = ScanResult(Advice.NO_ACTION)
LONG = 15.0  # s; no test waits for it
SOON = 0.2  # s, the time limit of a scanner that is to be given up
LINE = b"x" * 98 + b"\r\n"
Work = Callable[[AsyncIterator[bytes]], Coroutine[Any, Any, ScanResult]]


class Scripted:
    """Each scanner, by its address, does what a test says. `cancelled` are those whose scan was ended early."""

    def __init__(self, **work: Work) -> None:
        self._work = work
        self.facts: list[ScanFacts] = []
        self.cancelled: set[str] = set()

    async def scan(self, where: ScannerAddress, facts: ScanFacts, pieces: AsyncIterator[bytes]) -> ScanResult:
        self.facts.append(facts)
        try:
            return await self._work[where.address](pieces)
        except asyncio.CancelledError:
            self.cancelled.add(where.address)
            raise

    async def close(self) -> None: ...


def content(*names: str, timeout: float = LONG, on_error: OnError = OnError.TEMPFAIL, **more: Any) -> ContentPolicy:
    return ContentPolicy(
        scanners=tuple(
            ScannerPolicy(ScannerAddress(ScannerKind.CLAMD, name), timeout, on_error, **more) for name in names
        )
    )


async def clean(pieces: AsyncIterator[bytes]) -> ScanResult:
    async for _ in pieces:
        pass
    return CLEAN


async def found(pieces: AsyncIterator[bytes]) -> ScanResult:
    await clean(pieces)
    return ScanResult(Advice.FOUND, ("Worm",))


async def silent(pieces: AsyncIterator[bytes]) -> ScanResult:
    await clean(pieces)
    await asyncio.Event().wait()
    return CLEAN


async def stuck(pieces: AsyncIterator[bytes]) -> ScanResult:
    await asyncio.Event().wait()
    return CLEAN


async def hasty(pieces: AsyncIterator[bytes]) -> ScanResult:
    await anext(pieces)
    return CLEAN


async def broken(pieces: AsyncIterator[bytes]) -> ScanResult:
    raise RuntimeError("a secret of ours")


async def send(client: Client, body: bytes = b"Subject: x\r\n\r\nhello\r\n") -> str:
    await client.begin()
    client.send(body + b".\r\n")
    return await client.reply()


async def test_they_work_at_the_same_time(make_edge: MakeEdge) -> None:
    """Each waits for the other to have all of the message. Fails when they are asked one after the other."""
    here = asyncio.Barrier(2)

    async def meeting(pieces: AsyncIterator[bytes]) -> ScanResult:
        await clean(pieces)
        async with asyncio.timeout(LONG):
            await here.wait()
        return CLEAN

    edge = await make_edge(scanners=Scripted(a=meeting, b=meeting), content=content("a", "b"))
    assert (await send(await edge.client())).startswith("250")


async def test_a_scanner_gets_the_message_while_it_comes(make_edge: MakeEdge) -> None:
    """Fails when it is only sent behind the final dot, or altered on its way (dots, pieces)."""
    got, began = bytearray(), asyncio.Event()

    async def reading(pieces: AsyncIterator[bytes]) -> ScanResult:
        async for piece in pieces:
            got.extend(piece)
            began.set()
        return CLEAN

    edge = await make_edge(scanners=Scripted(a=reading), content=content("a"))
    client = await (await edge.client()).begin()
    client.send(b"Subject: x\r\n\r\nfirst\r\n")
    async with asyncio.timeout(LONG):
        await began.wait()
    client.send(b"..second\r\n.\r\n")
    assert (await client.reply()).startswith("250")
    assert bytes(got) == b"Subject: x\r\n\r\nfirst\r\n.second\r\n" == edge.messages()[0][1]


@pytest.mark.parametrize(
    ("work", "reply"), [(silent, "451 4.7.1"), (stuck, "451 4.7.1"), (hasty, "451 4.7.1"), (broken, "451 4.7.1")]
)
async def test_one_that_gives_no_result_is_an_error(make_edge: MakeEdge, work: Work, reply: str) -> None:
    """No answer in time, an answer before the message, a fault of ours: onError. A clean result that came before
    the whole message was taken is none. Fails when any of them counts as clean."""
    edge = await make_edge(scanners=Scripted(a=work, b=clean), content=content("a", "b", timeout=SOON))
    client = await edge.client()
    said = await send(client, b"Subject: x\r\n\r\n" + LINE * 3000)
    assert said.startswith(reply)
    assert "secret" not in said
    assert not edge.messages()


async def test_ignored_and_accepted_errors(make_edge: MakeEdge) -> None:
    """Accept takes the message with a tag, Ignore without one."""
    edge = await make_edge(scanners=Scripted(a=broken), content=content("a", on_error=OnError.ACCEPT))
    client = await edge.client()
    assert (await send(client)).startswith("250")
    edge.configure(content=content("a", on_error=OnError.IGNORE))
    assert (await send(client)).startswith("250")
    [tagged, plain] = [envelope for envelope, _ in edge.messages()]
    assert tagged.tags == ("virus: not scanned, unavailable",)
    assert plain.tags == ()
    assert edge.events.kinds().count("judged") == 2


async def test_a_scanner_that_takes_nothing_makes_the_client_wait_and_is_given_up(make_edge: MakeEdge) -> None:
    """Memory stays bounded, the client gets its answer, and a second scanner still finds what it finds.

    Fails when a message is held for a scanner that stands still, or when the client waits for it for ever.
    """
    most = 0

    scanners = Scripted(a=stuck, b=found)
    edge = await make_edge(scanners=scanners, content=content("a", "b", timeout=SOON, on_error=OnError.IGNORE))
    client = await (await edge.client()).begin()
    sending = asyncio.create_task(send_slowly(client, LINE * 20_000))
    while not sending.done():
        for session in edge.server.sessions:
            looking = session.transaction and session.transaction.inspection
            if looking:
                most = max(most, *(scan._feed._held for scan in looking._scanning._scans))
        await asyncio.sleep(0)
    assert (await client.reply()).startswith("550 5.7.1 this message carries malware")
    assert most <= MOST_HELD + 256 * 1024
    assert "a" in scanners.cancelled


async def send_slowly(client: Client, data: bytes) -> None:
    client.send(b"Subject: x\r\n\r\n")
    for start in range(0, len(data), 50_000):
        client.send(data[start : start + 50_000])
        await client.writer.drain()
    client.send(b".\r\n")
    await client.writer.drain()


async def test_chunks_wait_as_well(make_edge: MakeEdge) -> None:
    """BDAT: what lies between two chunks is no way around the limit. Fails when each chunk is taken at once."""
    gate = asyncio.Event()

    async def held(pieces: AsyncIterator[bytes]) -> ScanResult:
        await gate.wait()
        return await clean(pieces)

    edge = await make_edge(scanners=Scripted(a=held), content=content("a"))
    client = await edge.client()
    assert (await client.ask("MAIL FROM:<a@x.example>")).startswith("250")
    assert (await client.ask("RCPT TO:<bob@example.test>")).startswith("250")
    chunk, count = LINE * 200, MOST_HELD // 20_000
    for _ in range(count):
        client.send(b"BDAT %d\r\n" % len(chunk) + chunk)
        assert (await client.reply()).startswith("250")
    client.send(b"BDAT %d\r\n" % len(chunk) + chunk)  # now more is held than may be
    [session] = edge.server.sessions
    await edge.until(lambda: session._reads_paused)
    client.send(b"BDAT %d LAST\r\n" % len(chunk) + chunk)
    gate.set()
    for _ in range(2):
        assert (await client.reply()).startswith("250")
    assert edge.messages()[0][0].size == (count + 2) * len(chunk)


async def test_a_client_that_goes_away_ends_the_scan(make_edge: MakeEdge) -> None:
    scanners = Scripted(a=silent)
    edge = await make_edge(scanners=scanners, content=content("a"))
    client = await (await edge.client()).begin()
    client.send(b"Subject: x\r\n.\r\n")
    await edge.until(lambda: bool(scanners.facts))
    client.reset()
    await edge.until(lambda: "a" in scanners.cancelled)


async def test_what_a_scanner_is_told(make_edge: MakeEdge) -> None:
    scanners = Scripted(a=clean)
    edge = await make_edge(scanners=scanners, content=content("a"))
    client = await (await edge.client()).begin("bob@example.test", "alice@example.test")
    client.send(b"Subject: x\r\n.\r\n")
    assert (await client.reply()).startswith("250")
    [told] = scanners.facts
    assert told.reverse_path == "alice@example.org"
    assert told.recipients == ("bob@example.test", "alice@example.test")
    assert (told.client, told.helo, told.login) == ("127.0.0.1", "client.example.org", "")


async def test_own_clients_can_be_spared(make_edge: MakeEdge) -> None:
    scanners = Scripted(a=found)
    auth = {"auth_enabled": True, "auth_directory": "people", "auth_require_tls": False}
    edge = await make_edge(
        scanners=scanners,
        content=content("a", own_clients=False),
        auth_require_for=RequireFor.RELAY,
        **auth,
    )
    client = await edge.client()
    assert (await send(client)).startswith("550")
    assert (await client.ask("AUTH PLAIN AGFsaWNlAHNlY3JldC1h")).startswith("235")
    await client.begin(sender="alice@example.test")
    client.send(b"Subject: x\r\n.\r\n")
    assert (await client.reply()).startswith("250")
    edge.configure(content=content("a"))
    await client.begin(sender="alice@example.test")
    client.send(b"Subject: x\r\n.\r\n")
    assert (await client.reply()).startswith("550")
    assert scanners.facts[-1].login == "alice"


async def test_a_scan_is_measured(make_edge: MakeEdge) -> None:
    edge = await make_edge(scanners=Scripted(a=found), content=content("a"))
    labels = ("mx", "Clamd", "found")
    before = sum(metrics.SCANS.counts.get(labels, ()))
    assert (await send(await edge.client())).startswith("550")
    assert sum(metrics.SCANS.counts[labels]) == before + 1


async def test_without_scanners_nothing_is_begun(make_edge: MakeEdge) -> None:
    """The hot path: no task and no inspection. Fails when an empty policy costs anything."""
    edge = await make_edge()
    client = await (await edge.client()).begin()
    [session] = edge.server.sessions
    client.send(b"Subject: x\r\n\r\n")
    await edge.until(lambda: session.content_bytes > 0)
    assert session.transaction is not None
    assert session.transaction.inspection is None
    client.send(b".\r\n")
    assert (await client.reply()).startswith("250")


@pytest.mark.requirement("S4-27")
async def test_a_clean_result_vouches_for_nothing(make_edge: MakeEdge) -> None:
    """Own rules decide whatever scanners say. Fails without asking the others when a scanner finds nothing."""
    traps = SpamTrapPolicy(addresses=("trap@example.test",))
    edge = await make_edge(scanners=Scripted(a=clean), content=content("a"), spam_traps=traps)
    client = await (await edge.client()).begin("bob@example.test", "trap@example.test")
    client.send(b"Subject: x\r\n.\r\n")
    assert (await client.reply()).startswith("550 5.7.1 this message is not wanted here")
