"""A real clamd and a real rspamd behind a real edge session: a test virus, test spam, and both away."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

from gatepost.backends.scanners import RealScanners
from gatepost.core.checks.scanners import ScannerPolicy
from gatepost.core.configuration_content import ContentPolicy
from gatepost.core.manifest.actions import OnError
from gatepost.core.ports.scanner import ScannerAddress, ScannerKind
from testbed.clamd import EICAR, SIGNATURE, Clamd
from testbed.rspamd import GTUBE, Rspamd

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

pytestmark = pytest.mark.servers

HEADER = b"From: <x@other.example>\r\nTo: <bob@example.test>\r\nSubject: x\r\nMIME-Version: 1.0\r\n"
VIRUS = (
    HEADER
    + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
    + b"Content-Type: text/plain\r\n\r\nsee below\r\n--b\r\n"
    + b"Content-Type: application/octet-stream; name=e.com\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + base64.encodebytes(EICAR).replace(b"\n", b"\r\n")
    + b"--b--\r\n"
)


@pytest.fixture(scope="module")
def clamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clamd]:
    with Clamd(tmp_path_factory.mktemp("clamd")) as server:
        yield server


@pytest.fixture(scope="module")
def rspamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rspamd]:
    with Rspamd(tmp_path_factory.mktemp("rspamd")) as server:
        yield server


@pytest.fixture
async def edge(make_edge: MakeEdge, clamd: Clamd, rspamd: Rspamd) -> AsyncIterator[Edge]:
    real = RealScanners()
    policies = (
        ScannerPolicy(ScannerAddress(ScannerKind.CLAMD, clamd.address), 20.0, OnError.TEMPFAIL),
        ScannerPolicy(ScannerAddress(ScannerKind.RSPAMD, rspamd.url), 20.0, OnError.ACCEPT),
    )
    yield await make_edge(scanners=real, content=ContentPolicy(scanners=policies))
    await real.close()


async def send(client: Client, message: bytes) -> str:
    await client.begin()
    client.send(message + b".\r\n")
    return await client.reply()


@pytest.mark.requirement("S0-44")
@pytest.mark.requirement("S2-20")
async def test_the_test_virus_is_refused(edge: Edge) -> None:
    """clamd unpacks the message itself, and the client hears no more than that it is malware.

    Fails without the scan of bodies, or when the message reaches clamd changed.
    """
    client = await edge.client()
    assert (await send(client, VIRUS)).startswith("550 5.7.1 this message carries malware (virus)")
    assert (await send(client, HEADER + b"\r\nGood morning\r\n")).startswith("250")
    assert len(edge.messages()) == 1
    told = [one.facts for one in edge.events.all if one.kind == "judged"]
    assert [(one["check"], one["action"]) for one in told] == [
        ("virus", "Reject"),
        ("spam", "Accept"),
        ("virus", "Accept"),
        ("spam", "Accept"),
    ]
    assert (told[0]["names"], told[0]["scanner"]) == (SIGNATURE, "Clamd")


async def test_the_test_spam_is_refused(edge: Edge) -> None:
    client = await edge.client()
    assert (await send(client, HEADER + b"\r\n" + GTUBE + b"\r\n")).startswith(
        "550 5.7.1 this message is taken for spam"
    )
    assert (await send(client, HEADER + b"X-Points: 7\r\n\r\nhello\r\n")).startswith("250")
    assert (await send(client, HEADER + b"X-Action: soft reject\r\n\r\nhello\r\n")).startswith("451 4.7.1")
    [envelope] = [envelope for envelope, _ in edge.messages()]
    assert envelope.tags == ("spam: add header (TEST_POINTS)",)


async def test_a_large_message_through_both(edge: Edge) -> None:
    """1.5 MB while it comes; what is behind a large part is found as well."""
    filler = (b"x" * 98 + b"\r\n") * 15_000
    client = await edge.client()
    assert (await send(client, HEADER + b"\r\n" + filler)).startswith("250")
    late = VIRUS.replace(b"see below\r\n", b"see below\r\n" + filler)
    assert (await send(client, late)).startswith("550 5.7.1 this message carries malware")


async def test_a_message_above_the_scanners_own_limit_is_refused_by_it(edge: Edge) -> None:
    """clamd breaks off at StreamMaxLength: an error, with Tempfail 451. Fails when a broken pipe is clean."""
    client = await edge.client()
    assert (await send(client, HEADER + b"\r\n" + (b"x" * 98 + b"\r\n") * 25_000)).startswith("451 4.7.1")
    assert not edge.messages()


async def test_both_come_back(edge: Edge, clamd: Clamd, rspamd: Rspamd) -> None:
    """While clamd is away 451, while rspamd is away a tag; afterwards as before, without a restart of ours."""
    client = await edge.client()
    clamd.server.stop()
    try:
        assert (await send(client, HEADER + b"\r\nhello\r\n")).startswith(
            "451 4.7.1 this message cannot be scanned"
        )
    finally:
        clamd.server.start()
    rspamd.server.stop()
    try:
        assert (await send(client, HEADER + b"\r\n" + GTUBE + b"\r\n")).startswith("250")
    finally:
        rspamd.server.start()
    assert edge.messages()[-1][0].tags == ("spam: not scanned, unavailable",)
    assert (await send(client, VIRUS)).startswith("550 5.7.1 this message carries malware")
    assert (await send(client, HEADER + b"\r\n" + GTUBE + b"\r\n")).startswith("550 5.7.1 this message is taken")
