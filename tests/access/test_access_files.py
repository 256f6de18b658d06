"""Access tables in files: read, changed, broken, gone, and linked as a ConfigMap is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gatepost.backends.access_file import MAX_BYTES, AccessFiles, read_access_file
from gatepost.core.access.entry import AccessError
from gatepost.core.access.table import AccessChain
from gatepost.core.address import parse_address
from gatepost.telemetry import metrics

PATIENCE = 20.0
QUICK = 0.01  # s between two looks


class Watched:
    """Tables in a folder and an event for each new version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = AccessFiles(folder)
        self.changed = asyncio.Event()
        self.files.on_change(self.changed.set)

    def action(self, sender: str) -> str | None:
        table = self.files.table("access")
        assert table is not None
        rule = AccessChain([table]).sender(parse_address(sender))
        return None if rule is None or rule.action is None else rule.action.value

    async def next_version(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.changed.wait()
        self.changed.clear()

    async def refused(self, count: float) -> None:
        async with asyncio.timeout(PATIENCE):
            while sum(metrics.ACCESS_TABLE_REFUSED.values.values()) <= count:
                await asyncio.sleep(QUICK)


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    one = Watched(tmp_path)
    await one.files.start()
    yield one
    await one.files.close()


def replace(file: Path, text: str) -> None:
    """A new version appears as a whole, as an editor or the kubelet makes it."""
    new = file.with_name("new")
    new.write_text(text, "utf-8")
    new.replace(file)


@pytest.mark.requirement("S4-21")
@pytest.mark.requirement("S2-18")
async def test_a_changed_table_is_live_and_a_bad_one_is_refused(watched: Watched) -> None:
    """Fails without reloading by itself, whole versions only, and a bad one refused by file, line and reason."""
    file = watched.folder / "access"
    file.write_text("From:spam.example\tREJECT\n", "utf-8")
    watched.files.want({"access": QUICK})
    await watched.next_version()
    assert watched.action("a@spam.example") == "Reject"
    replace(file, "From:spam.example\tDISCARD\nFrom:more.example\tREJECT\n")
    await watched.next_version()
    assert watched.action("a@spam.example") == "Discard"
    before = sum(metrics.ACCESS_TABLE_REFUSED.values.values())
    with capture_logs() as lines:
        replace(file, "From:spam.example\tOK\nFrom:more.example\tBURN\n")
        await watched.refused(before)
    (line,) = [line for line in lines if line["event"] == "access.refused"]
    assert line["reason"].startswith(f"{file} line 2: 'BURN' is no action")
    assert line["in_use"] == "the version read before"
    assert watched.action("a@spam.example") == "Discard"
    assert watched.action("a@more.example") == "Reject"
    replace(file, "From:spam.example\tOK\n")
    await watched.next_version()
    assert watched.action("a@spam.example") == "Accept"


async def test_a_table_that_goes_away_stays_in_use_and_comes_back(watched: Watched) -> None:
    file = watched.folder / "access"
    file.write_text("From:spam.example\tREJECT\n", "utf-8")
    watched.files.want({"access": QUICK})
    await watched.next_version()
    before = sum(metrics.ACCESS_TABLE_REFUSED.values.values())
    file.unlink()
    await watched.refused(before)
    assert watched.action("a@spam.example") == "Reject"
    file.write_text("From:spam.example\tDISCARD\n", "utf-8")
    await watched.next_version()
    assert watched.action("a@spam.example") == "Discard"


async def test_a_table_that_was_never_there(watched: Watched) -> None:
    before = sum(metrics.ACCESS_TABLE_REFUSED.values.values())
    watched.files.want({"access": QUICK})
    assert watched.files.table("access") is None
    await watched.refused(before)
    assert watched.files.table("access") is None
    assert watched.files.table("another") is None


async def test_a_mounted_configmap_is_followed(watched: Watched) -> None:
    """The kubelet changes a link, never the file."""
    one, two = watched.folder / "..1", watched.folder / "..2"
    for folder, value in ((one, "REJECT"), (two, "DISCARD")):
        folder.mkdir()
        (folder / "access").write_text(f"From:spam.example {value}\n", "utf-8")
    data = watched.folder / "..data"
    data.symlink_to(one)
    (watched.folder / "access").symlink_to("..data/access")
    watched.files.want({"access": QUICK})
    await watched.next_version()
    assert watched.action("a@spam.example") == "Reject"
    link = watched.folder / "..tmp"
    link.symlink_to(two)
    link.replace(data)
    await watched.next_version()
    assert watched.action("a@spam.example") == "Discard"


async def test_tables_that_are_no_longer_wanted_are_forgotten(watched: Watched) -> None:
    (watched.folder / "access").write_text("From:spam.example\tREJECT\n", "utf-8")
    watched.files.want({"access": QUICK})
    await watched.next_version()
    watched.files.want({})
    assert watched.files.table("access") is None


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    file = tmp_path / "access"
    file.write_bytes(b"a.example OK\n\xff\xfe REJECT\n")
    with pytest.raises(AccessError, match="line 2: not UTF-8"):
        read_access_file(file)
    with file.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(AccessError, match="larger than 64 MiB"):
        read_access_file(file)
    with pytest.raises(AccessError, match="cannot be read"):
        read_access_file(tmp_path / "nothing")
