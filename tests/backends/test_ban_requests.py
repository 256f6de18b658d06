"""An administrator's bans get into the shared memory by the process that owns it; junk in the folder does not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from gatepost.backends.ban_requests import FOLDER, MOST_BYTES, BanRequest, BanRequests, lay_down
from gatepost.backends.state_memory import MemoryState
from gatepost.core.bans import BAN, Ban, BanCause, client_key
from gatepost.core.ports.events import Event
from gatepost.core.ports.state import StateUnavailable

NOW_MS = 1_790_000_000_000
WANTED = Ban(NOW_MS, NOW_MS + 60_000, BanCause.ADMINISTRATOR, "scans us")


class Told:
    def __init__(self) -> None:
        self.all: list[Event] = []

    def emit(self, event: Event) -> None:
        self.all.append(event)


class World:
    def __init__(self, folder: Path) -> None:
        self.folder, self.events = folder, Told()
        self.state = MemoryState((BAN,), lambda: NOW_MS)
        self.requests = BanRequests(folder, self.state, self.events, lambda: NOW_MS)

    def banned(self, network: str) -> Ban | None:
        return self.state.get(BAN, client_key(network), NOW_MS)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_ban_is_made_and_lifted_and_both_are_told(world: World) -> None:
    file = lay_down(world.folder, BanRequest("192.0.2.0/24", WANTED))
    assert file.stat().st_mode & 0o077 == 0, "others could read or change it"
    assert await world.requests.take() == 1
    assert world.banned("192.0.2.0/24") == WANTED
    lay_down(world.folder, BanRequest("192.0.2.0/24"))
    assert await world.requests.take() == 1
    assert world.banned("192.0.2.0/24") is None
    assert [(event.kind, event.facts["subject"]) for event in world.events.all] == [
        ("banned", "192.0.2.0/24"),
        ("unbanned", "192.0.2.0/24"),
    ]


async def test_it_looks_by_itself(world: World) -> None:
    lay_down(world.folder, BanRequest("192.0.2.7", WANTED))
    await world.requests.start()
    async with asyncio.timeout(20):
        while world.banned("192.0.2.7") is None:
            await asyncio.sleep(0)
    await world.requests.close()


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"{}",
        b"\xff",
        msgspec.json.encode(BanRequest("everybody", WANTED)),
        msgspec.json.encode(BanRequest("0.0.0.0/0", WANTED)),
        msgspec.json.encode(BanRequest("192.0.2.0/24", WANTED)) + b" " * MOST_BYTES,
    ],
)
async def test_junk_is_put_away(world: World, junk: bytes) -> None:
    folder = world.folder / FOLDER
    folder.mkdir()
    (folder / "x.json").write_bytes(junk)
    assert await world.requests.take() == 1
    assert world.state.size(BAN) == 0
    assert list(folder.iterdir()) == []


async def test_while_the_memory_is_away_a_request_waits(world: World) -> None:
    lay_down(world.folder, BanRequest("192.0.2.7", WANTED))
    world.state.away = True
    with pytest.raises(StateUnavailable):
        await world.requests.take()
    world.state.away = False
    assert await world.requests.take() == 1
    assert world.banned("192.0.2.7") == WANTED
