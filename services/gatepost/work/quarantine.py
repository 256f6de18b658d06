"""Records that cannot be used are kept for a person to look at, with their bodies; never skipped, never guessed at.

A body in `content.transit` is copied to `content.kept` on the way into quarantine: there it expires by its own
time, so that stopped mail neither pins what passes through nor loses its body when that is trimmed.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import structlog

from gatepost.core.ports.content import Content, ContentDamaged
from gatepost.core.ports.log import Entry, Headers, LogGap, Record
from gatepost.core.stopped import reference_in, with_reason, with_reference
from gatepost.core.topics import Topics
from gatepost.telemetry import metrics

COPY_LIMIT_S: Final = 60.0  # reading, and then writing, a body of 50 MB on a busy cluster

_log = structlog.get_logger()


class Quarantine:
    """Makes the entries by which work records become quarantined (or held) ones. One for a process."""

    def __init__(self, topics: Topics, transit: Content, kept: Content) -> None:
        """`transit` reads bodies wherever they lie, `kept` writes to `content.kept`."""
        self._topics, self._transit, self._kept = topics, transit, kept

    async def entry(self, record: Record, reason: str, *, topic: str = "") -> Entry:
        """Return the record for `quarantine` (or another `topic` of stopped mail) once its body is there to stay.

        A body that cannot be had any more is left out: the reason says so, the reference stays as it is. Raises
        the log port's LogUnavailable and LogUnknown; then it may be called again: a copy that nothing refers to
        expires. With a body to copy it waits before it has any effect (see at_once).
        """
        headers, reason = await self._with_kept_body(record, reason)
        return self._tell(record, reason, msgspec.structs.replace(self._entry(record, topic), headers=headers))

    async def kept(self, record: Record, reason: str) -> Entry:
        """The same for mail that a policy stops: nothing is wrong with it. Raises as entry() does."""
        headers, reason = await self._with_kept_body(record, reason)
        return msgspec.structs.replace(self._entry(record), headers=with_reason(headers, reason))

    async def _with_kept_body(self, record: Record, reason: str) -> tuple[Headers, str]:
        """The record's headers and the reason, once the body is where stopped mail keeps it."""
        message_id, reference = reference_in(record.headers)
        headers = record.headers
        if reference is not None and reference.topic == self._topics.content_transit:
            await asyncio.sleep(0)
            try:
                body = await self._transit.read(reference, COPY_LIMIT_S)
            except (ContentDamaged, LogGap) as error:
                reason = f"{reason}; {lost_reason(error)}"
            else:
                try:
                    copied = await self._kept.write(message_id, body, COPY_LIMIT_S)
                finally:
                    body.close()
                headers = with_reference(headers, copied)
        return headers, reason

    def without_body(self, record: Record, reason: str) -> Entry:
        """Return the record for `quarantine` as it is, when it is known that its body cannot be had."""
        return self._tell(record, reason, self._entry(record))

    def _entry(self, record: Record, topic: str = "") -> Entry:
        return Entry(topic or self._topics.quarantine, record.value, record.key, record.headers)

    def _tell(self, record: Record, reason: str, entry: Entry) -> Entry:
        metrics.UNREADABLE.add(record.topic)
        _log.error(
            "work.quarantined",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=reason,
        )
        return msgspec.structs.replace(entry, headers=with_reason(entry.headers, reason))


def lost_reason(error: ContentDamaged | LogGap) -> str:
    """What the quarantine says of a body that cannot be had any more."""
    return f"the body cannot be read back: {error}"
