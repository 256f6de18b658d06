"""What every scanner must do (core/ports/scanner): the fake, clamd by TCP and by its socket, rspamd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from gatepost.backends.scanners import RealScanners
from gatepost.core.ports.scanner import (
    Advice,
    ScanFacts,
    ScannerAddress,
    ScannerKind,
    ScannerUnavailable,
    ScanResult,
)
from testbed import ports
from testbed.rspamd import HIGHEST_SCORE

if TYPE_CHECKING:
    from conftest import Place

    from testbed.rspamd import Rspamd

PATIENCE = 30.0
HEADER = b"From: a@sender.example\r\nTo: bob@example.test\r\nSubject: x\r\n"


async def pieces(message: bytes, size: int = 0) -> AsyncIterator[bytes]:
    for start in range(0, len(message), size or max(1, len(message))):
        await asyncio.sleep(0)
        yield message[start : start + (size or len(message))]


FACTS = ScanFacts(
    "4XYZ", "a@sender.example", ("b@x.test", "c@x.test"), "192.0.2.1", "h.example", "helo.example", "ann"
)


async def scan(place: Place, message: bytes, size: int = 0) -> ScanResult:
    async with asyncio.timeout(PATIENCE):
        return await place.scanners.scan(place.where, FACTS, pieces(message, size))


async def test_a_clean_message(place: Place) -> None:
    found = await scan(place, HEADER + b"\r\nGood morning\r\n")
    assert (found.advice, found.names) == (Advice.NO_ACTION, ())


@pytest.mark.parametrize("size", [0, 1, 100])
async def test_a_message_that_it_has_something_against(place: Place, size: int) -> None:
    """The same however the message comes. Fails without the chunks' lengths, or with a message that is cut."""
    found = await scan(place, place.bad, size)
    assert found.advice is place.advice
    assert found.names == (place.name,)


async def test_a_message_that_is_too_large_for_it(place: Place) -> None:
    """Refused, whenever in the message the scanner says so. Fails when only a broken pipe is seen."""
    with pytest.raises(place.too_large_error):
        await scan(place, place.too_large, 100_000)


async def test_many_at_once(place: Place) -> None:
    """Each gets its own result."""
    messages = [place.bad if n % 3 == 0 else HEADER + b"\r\nGood morning\r\n" for n in range(12)]
    found = await asyncio.gather(*(scan(place, message) for message in messages))
    assert [one.advice is place.advice for one in found] == [n % 3 == 0 for n in range(12)]


async def test_a_scan_that_is_cancelled_leaves_the_scanner_usable(place: Place) -> None:
    begun = asyncio.Event()

    async def never_ending() -> AsyncIterator[bytes]:
        yield HEADER
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(place.scanners.scan(place.where, FACTS, never_ending()))
    async with asyncio.timeout(PATIENCE):
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (await scan(place, place.bad)).advice is place.advice


async def test_nobody_listens(place: Place) -> None:
    scheme = "http" if place.where.kind is ScannerKind.RSPAMD else "tcp"
    port = ports.reserve()
    place.where = ScannerAddress(place.where.kind, f"{scheme}://127.0.0.1:{port}")
    with pytest.raises(ScannerUnavailable):
        await scan(place, place.bad)
    ports.release(port)


# -- what only rspamd has


@pytest.mark.servers
@pytest.mark.parametrize(
    ("field", "advice"),
    [
        ("X-Points: 4.5", Advice.GREYLIST),
        ("X-Points: 7", Advice.ADD_HEADER),
        ("X-Points: 16", Advice.REJECT),
        ("X-Action: soft reject", Advice.SOFT_REJECT),
        ("X-Action: rewrite subject", Advice.REWRITE_SUBJECT),
        ("X-Action: quarantine", Advice.QUARANTINE),
        ("X-Action: discard", Advice.DISCARD),
    ],
)
async def test_every_action_of_rspamd(rspamd: Rspamd, field: str, advice: Advice) -> None:
    real = RealScanners()
    where = ScannerAddress(ScannerKind.RSPAMD, rspamd.url)
    message = HEADER + field.encode() + b"\r\n\r\nhello\r\n"
    async with asyncio.timeout(PATIENCE):
        found = await real.scan(where, FACTS, pieces(message))
    await real.close()
    assert found.advice is advice
    if field.startswith("X-Points"):
        assert found.names == ("TEST_POINTS",)
        assert found.score == float(field.split()[1])
        assert found.required == HIGHEST_SCORE


@pytest.mark.servers
async def test_rspamd_is_told_the_envelope(rspamd: Rspamd) -> None:
    """Sender, recipients, address, names, login and id. Fails when a header is missing, or sent wrongly."""
    real = RealScanners()
    async with asyncio.timeout(PATIENCE):
        where = ScannerAddress(ScannerKind.RSPAMD, rspamd.url)
        await real.scan(where, FACTS, pieces(HEADER + b"X-Envelope: 1\r\n\r\nhello\r\n"))
    await real.close()
    assert (
        "ENVELOPE from=a@sender.example to=b@x.test,c@x.test ip=192.0.2.1 helo=helo.example host=h.example "
        "user=ann id=4XYZ" in rspamd.server.log.read_text("utf-8", "replace")
    )
