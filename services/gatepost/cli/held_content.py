"""Messages that the log still holds, by id: in work topics (finished ones too), in retry tiers, in quarantine."""

from __future__ import annotations

from gatepost.backends.content_log import ContentLog
from gatepost.backends.log_sqlite.view import SqliteLogView
from gatepost.cli.looking import read_topic
from gatepost.core.envelope import Envelope, EnvelopeError
from gatepost.core.leaving import leaving, leaving_bytes
from gatepost.core.ports.content import ContentDamaged
from gatepost.core.ports.log import Log, LogGap, LogMisconfigured
from gatepost.core.records import Item, read_item
from gatepost.core.topics import Topics
from gatepost.work.backlog import all_queues

READ_LIMIT_S = 60.0


async def held_messages(
    log: Log | SqliteLogView, topics: Topics, stores: tuple[str, ...], ids: set[str]
) -> dict[str, bytes]:
    """Return id -> the message as it is handed on, with our Received; each id from where it is found first."""
    found: dict[str, bytes] = {}
    names = [*(queue.topic for queue in all_queues(topics, stores)), topics.held, topics.quarantine]
    for topic in names:
        try:
            async for records in read_topic(log, topic):
                for record in records:
                    try:
                        item = read_item(record)
                    except EnvelopeError:
                        continue
                    wanted = {item.envelope.id, item.envelope.parent} & ids
                    if wanted and item.envelope.id not in found:
                        data = await _whole(log, topics, item)
                        if data is not None:
                            found[item.envelope.id] = data
        except LogMisconfigured:
            continue  # a store that was never used has no topic yet
    return found


async def _whole(log: Log | SqliteLogView, topics: Topics, item: Item) -> bytes | None:
    """None when the body is no longer there."""
    envelope: Envelope = item.envelope
    head = envelope.prepend.encode("utf-8", "surrogateescape")
    if envelope.content is None:
        return head + leaving_bytes(item.inline, envelope.strip, envelope.insert)
    try:
        body = await ContentLog(log, topics.content_transit).read(envelope.content, READ_LIMIT_S)  # type: ignore[arg-type]
    except (LogGap, ContentDamaged):
        return None
    try:
        return head + leaving(body, envelope.strip, envelope.insert).whole()
    finally:
        body.close()
