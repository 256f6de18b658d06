"""The table, a real clamd and a real rspamd, each with messages that it has the same opinion of."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from gatepost.backends.scanner_table import TableScanners
from gatepost.backends.scanners import RealScanners
from gatepost.core.ports.scanner import (
    Advice,
    ScannerAddress,
    ScannerKind,
    ScannerRefused,
    Scanners,
    ScannerUnavailable,
    ScanResult,
)
from testbed.clamd import EICAR, SIGNATURE, STREAM_MAX, Clamd
from testbed.rspamd import GTUBE, MAX_MESSAGE, Rspamd

HEADER = b"From: a@sender.example\r\nTo: bob@example.test\r\nSubject: x\r\n"
SPAM = HEADER + b"\r\n" + GTUBE + b"\r\n"
VIRUS = (
    HEADER
    + b"MIME-Version: 1.0\r\nContent-Type: application/octet-stream; name=e.com\r\n"
    + b"Content-Transfer-Encoding: base64\r\n\r\n"
    + base64.encodebytes(EICAR).replace(b"\n", b"\r\n")
)


# clamd says why, but closes at once, so that a write that fails may come before its words are read.
BROKEN_OFF = (ScannerRefused, ScannerUnavailable)


@dataclass
class Place:
    """A scanner, a message that it has something against, and what it says of it."""

    scanners: Scanners
    where: ScannerAddress
    bad: bytes
    advice: Advice
    name: str
    too_large: bytes
    too_large_error: type[Exception] | tuple[type[Exception], ...] = ScannerRefused


@pytest.fixture(scope="session")
def clamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clamd]:
    with Clamd(tmp_path_factory.mktemp("clamd")) as server:
        yield server


@pytest.fixture(scope="session")
def rspamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rspamd]:
    with Rspamd(tmp_path_factory.mktemp("rspamd")) as server:
        yield server


@pytest.fixture(
    params=[
        "table",
        pytest.param("clamd", marks=pytest.mark.servers),
        pytest.param("clamd by its socket", marks=pytest.mark.servers),
        pytest.param("rspamd", marks=pytest.mark.servers),
    ]
)
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    large = HEADER + b"\r\n" + b"x" * 998 + b"\r\n"
    if request.param == "table":
        table = TableScanners()
        table.add("table", b"x" * 998, ScannerRefused("too large"))
        table.add("table", GTUBE, ScanResult(Advice.REJECT, ("GTUBE",), 15.0, 15.0))
        table.add("table", b"", ScanResult(Advice.NO_ACTION))
        where = ScannerAddress(ScannerKind.RSPAMD, "table")
        yield Place(table, where, SPAM, Advice.REJECT, "GTUBE", large)
        return
    real = RealScanners()
    if request.param == "rspamd":
        server = request.getfixturevalue("rspamd")
        where = ScannerAddress(ScannerKind.RSPAMD, server.url)
        # rspamd closes the connection without a word.
        yield Place(real, where, SPAM, Advice.REJECT, "GTUBE", large * (MAX_MESSAGE // 900), ScannerUnavailable)
    else:
        server = request.getfixturevalue("clamd")
        address = server.address if request.param == "clamd" else server.unix_address
        where = ScannerAddress(ScannerKind.CLAMD, address)
        yield Place(real, where, VIRUS, Advice.FOUND, SIGNATURE, large * (STREAM_MAX // 900), BROKEN_OFF)
    await real.close()
