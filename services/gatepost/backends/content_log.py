"""The content port over a log: bodies in pieces in one partition of a content topic, referred to by offsets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gatepost.backends.body import BodyWriter, MemoryBody, SpooledBody
from gatepost.backends.content_stream import PieceStream, Window
from gatepost.core.envelope import PIECE_SIZE, ContentRef
from gatepost.core.ports.content import Body, ContentDamaged
from gatepost.core.ports.log import Log, LogUnavailable

# Reads of pieces that one process does at the same time, and pieces in each: with their copies at most some 60 MB.
_READS_AT_ONCE: Final = 8
_READ_AT_ONCE: Final = 4


class ContentLog:
    """Implements the content port over a Log and one topic for what it writes; it reads from any topic."""

    def __init__(self, log: Log, topic: str, *, spool_above: int = 1024 * 1024, folder: Path | None = None) -> None:
        """Bodies above `spool_above` bytes are read into an unlinked file in `folder`."""
        self._log = log
        self._new_body: Callable[[], BodyWriter] = lambda: BodyWriter(spool_above, folder)
        self._room = asyncio.Semaphore(_READS_AT_ONCE)
        self._window = Window(log, topic)

    def open(self, message_id: str, limit: float, on_room: Callable[[], None]) -> PieceStream:
        return PieceStream(self._window, message_id, limit, on_room)

    async def write(self, message_id: str, body: Body, limit: float) -> ContentRef:
        room = asyncio.Event()
        stream = self.open(message_id, limit, room.set)
        try:
            async with asyncio.timeout(limit):
                async for piece in body.pieces(PIECE_SIZE):
                    room.clear()
                    stream.append(piece)
                    if stream.behind:
                        await room.wait()
                return await stream.finish(body.size, body.sha256)
        except TimeoutError:
            raise LogUnavailable("the body could not be written within its limit") from None
        finally:
            stream.abandon()

    async def read(self, ref: ContentRef, limit: float) -> MemoryBody | SpooledBody:
        """Read a body; `limit` is for all of it, in seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        body = self._new_body()
        try:
            for start in range(0, len(ref.offsets), _READ_AT_ONCE):
                wanted = ref.offsets[start : start + _READ_AT_ONCE]
                async with _turn(self._room, deadline):
                    remaining = max(deadline - loop.time(), 0.001)
                    for record in await self._log.read(ref.topic, ref.partition, wanted, remaining):
                        body.write(record.value)
            return _checked(body, ref)
        finally:
            body.abandon()


def _checked(written: BodyWriter, ref: ContentRef) -> MemoryBody | SpooledBody:
    body = written.finish()
    if body.size == ref.size and body.sha256 == ref.sha256:
        return body
    body.close()
    raise ContentDamaged(
        f"the body in {ref.topic}/{ref.partition} at {ref.offsets[:1]} has {body.size} bytes and SHA-256 "
        f"{body.sha256}; {ref.size} bytes and {ref.sha256} were promised"
    )


class _turn:  # noqa: N801 - reads as a verb where it is used
    """Holds a place of a semaphore, waiting for it no longer than the deadline. Raises LogUnavailable then."""

    def __init__(self, room: asyncio.Semaphore, deadline: float) -> None:
        self._room = room
        self._deadline = deadline

    async def __aenter__(self) -> None:
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._room.acquire()
        except TimeoutError:
            raise LogUnavailable("too many bodies are on their way at the same time") from None

    async def __aexit__(self, *_: object) -> None:
        self._room.release()
