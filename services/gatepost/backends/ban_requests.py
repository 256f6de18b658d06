"""Bans by an administrator's hand: written to the shared memory, also while another process owns the embedded log.

On Kafka the command writes for itself. An embedded log belongs to the process that runs; there the command lays a
file into `<state>/bans`, which only the owner of the state may write to, and the process takes it within a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gatepost.core.bans import BAN, Ban, BanError, key_of, subject_of
from gatepost.core.event_kinds import BANNED, UNBANNED
from gatepost.core.ids import new_id
from gatepost.core.ports.events import Event, Events
from gatepost.core.ports.state import State, StateError
from gatepost.telemetry.lasting import lasting

FOLDER: Final = "bans"
POLL_S: Final = 1.0
WRITE_LIMIT_S: Final = 10.0
# A request is some hundred bytes; whatever is larger is none.
MOST_BYTES: Final = 8192

_SUFFIX: Final = ".json"
_log = structlog.get_logger("gatepost.bans")


class BanRequest(msgspec.Struct, frozen=True):
    """`ban` None lifts the one that there is."""

    subject: str
    ban: Ban | None = None


async def carry_out(request: BanRequest, state: State, events: Events, now_ms: int) -> None:
    """Write a ban or lift one, and tell it. Raises StateError, BanError."""
    key = key_of(request.subject)
    facts = {"subject": subject_of(key), "cause": "administrator"}
    if request.ban is None:
        await state.remove(BAN, key, WRITE_LIMIT_S)
        events.emit(Event(new_id(now_ms), UNBANNED, now_ms, service="edge", facts=facts))
        _log.warning("unbanned", **facts)
        return
    await state.put(BAN, key, request.ban, request.ban.until_ms, WRITE_LIMIT_S)
    facts |= {"reason": request.ban.reason, "seconds": f"{(request.ban.until_ms - now_ms) / 1000:g}"}
    events.emit(Event(request.ban.id or new_id(now_ms), BANNED, now_ms, service="edge", facts=facts))
    _log.warning("banned", **facts)


def lay_down(state_folder: Path, request: BanRequest) -> Path:
    """Leave a request for the process that owns the state; the file is gone once it was taken. Raises OSError."""
    folder = state_folder / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = uuid.uuid4().hex
    hidden, file = folder / f".{name}", folder / f"{name}{_SUFFIX}"
    handle = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(handle, "wb") as stream:
        stream.write(msgspec.json.encode(request))
    os.rename(hidden, file)
    return file


class BanRequests:
    """Takes the requests that are laid into the state's folder. Needs start() and close()."""

    def __init__(self, state_folder: Path, state: State, events: Events, now_ms: Callable[[], int]) -> None:
        self._folder, self._state, self._events, self._now_ms = state_folder / FOLDER, state, events, now_ms
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look. Raises OSError when the folder cannot be made."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._task = lasting("ban requests", self._look)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _look(self) -> None:
        while True:
            try:
                await self.take()
            except (OSError, StateError) as error:
                _log.warning("bans.waits", reason=str(error))
            await asyncio.sleep(POLL_S)

    async def take(self) -> int:
        """Carry out what was laid down until now, the oldest first; return how many. Raises OSError, StateError."""
        files = await asyncio.to_thread(self._files)
        for file in files:
            data = await asyncio.to_thread(_read, file)
            try:
                request = msgspec.json.decode(data, type=BanRequest)
                await carry_out(request, self._state, self._events, self._now_ms())
            except (msgspec.MsgspecError, BanError) as error:
                _log.warning("bans.unreadable", file=file.name, reason=str(error))
            file.unlink(missing_ok=True)
        return len(files)

    def _files(self) -> list[Path]:
        found = [file for file in self._folder.iterdir() if file.suffix == _SUFFIX and file.is_file()]
        return sorted(found, key=lambda file: file.stat().st_mtime_ns)


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        data = stream.read(MOST_BYTES + 1)
    return b"" if len(data) > MOST_BYTES else data
