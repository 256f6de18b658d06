"""An item's body, wherever it lies; read patiently while the log is away, quarantined when it is lost."""

from __future__ import annotations

from typing import Final

from gatepost.core.memory_body import MemoryBody
from gatepost.core.ports.content import Body, Content, ContentDamaged
from gatepost.core.ports.log import Consumer, LogGap, Record
from gatepost.core.records import Item
from gatepost.work.loop import WorkLoop
from gatepost.work.quarantine import lost_reason

CONTENT_LIMIT_S: Final = 60.0
HEADER_PIECE: Final = 64 * 1024  # as much of a message as a notification may return


async def start_of(body: Body) -> bytes:
    """The first HEADER_PIECE bytes: enough of the header for a notification."""
    async for piece in body.pieces(HEADER_PIECE):
        return piece
    return b""


async def body_of(loop: WorkLoop, content: Content, consumer: Consumer, record: Record, item: Item) -> Body | None:
    """Return the body; None when there is nothing more to do with this record here.

    A body that is damaged or gone is an alarm: the record goes to quarantine with the reason (G6).
    """
    reference = item.envelope.content
    if reference is None:
        return MemoryBody(item.inline, item.envelope.sha256)
    bodies: list[Body] = []
    lost: list[str] = []

    async def read() -> None:
        try:
            bodies.append(await content.read(reference, CONTENT_LIMIT_S))
        except (ContentDamaged, LogGap) as error:
            lost.append(lost_reason(error))

    await loop.patiently(consumer, record, read, "content.waits")
    if lost:
        await loop.give_up_body(consumer, record, lost[0])
    return bodies[0] if bodies else None
