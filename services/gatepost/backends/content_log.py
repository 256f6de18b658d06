"""The content port over a log: bodies in pieces in one partition of a content topic, referred to by offsets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from gatepost.backends.body import BodyWriter, MemoryBody, SpooledBody
from gatepost.core.envelope import PIECE_SIZE, ContentRef
from gatepost.core.ports.content import Body, ContentDamaged
from gatepost.core.ports.log import Entry, Log, LogUnavailable, Position

# Pieces that one process writes or reads at the same time. A piece is copied a few times on its way (batch,
# request, socket), so this bounds memory: a hundred large bodies at once take their turns.
_PIECES_AT_ONCE: Final = 8
# Pieces of one body that are read by one call.
_READ_AT_ONCE: Final = 4

_PIECE_HEADER: Final = "piece"


class ContentLog:
    """Implements the content port over a Log and one topic for what it writes; it reads from any topic.

    Pieces of a body whose write failed midway are never referred to and go with the topic's retention.
    """

    def __init__(self, log: Log, topic: str, *, spool_above: int = 1024 * 1024, folder: Path | None = None) -> None:
        """Bodies above `spool_above` bytes are read into an unlinked file in `folder`."""
        self._log = log
        self._topic = topic
        self._new_body: Callable[[], BodyWriter] = lambda: BodyWriter(spool_above, folder)
        self._room = asyncio.Semaphore(_PIECES_AT_ONCE)

    async def write(self, message_id: str, body: Body, limit: float) -> ContentRef:
        """Write a body; `limit` is for all of it, in seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        partition: int | None = None
        offsets: list[int] = []
        number = 0
        async for piece in _pieces(body):
            async with _turn(self._room, deadline):
                entry = Entry(
                    topic=self._topic,
                    value=piece,
                    # The key is for people who look at the topic; the first piece's partition is for all.
                    key=message_id.encode() if partition is None else None,
                    headers=((_PIECE_HEADER, b"%s/%d" % (message_id.encode(), number)),),
                    partition=partition,
                )
                position: Position = await self._log.append(entry, max(deadline - loop.time(), 0.001))
            partition = position.partition
            offsets.append(position.offset)
            number += 1
        return ContentRef(
            topic=self._topic,
            partition=partition or 0,
            offsets=tuple(offsets),
            size=body.size,
            sha256=body.sha256,
        )

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


async def _pieces(body: Body) -> AsyncIterator[bytes]:
    """Give a body's pieces; an empty body has none, and so its reference has no offsets."""
    async for piece in body.pieces(PIECE_SIZE):
        yield piece


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
