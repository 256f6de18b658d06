"""A broker says that an offset is not there: when that is believed.

A broker that stood still (a stopped process, a virtual machine that was moved) goes on as the leader until the
controller tells it that there is another, and has nothing of what was written meanwhile. Whoever still asks it, by
metadata that is old as well, hears that a record is beyond the end (the case of Kafka's KIP-320). So only the start
of a partition, which never moves back, is believed at once; the end only when it was said again and again.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from aiokafka.structs import TopicPartition

from gatepost.backends.log_kafka.connection import Connection
from gatepost.backends.log_kafka.ends import ends

# Some twenty questions with new metadata, of which each may come from any broker.
PATIENCE_SECONDS: Final = 5.0
BACKOFF_SECONDS: Final = 0.2


class Disbelief:
    """Since when the leader of each partition has known less than we do, and when it last said so."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._said: dict[TopicPartition, tuple[float, float]] = {}

    def lacking(self, place: TopicPartition) -> bool:
        """Note that a record is not there yet; True once that has gone on for PATIENCE_SECONDS, and is believed."""
        self._connection.client.force_metadata_update()
        now = self._loop.time()
        first, last = self._said.get(place, (now, now))
        if now - last > PATIENCE_SECONDS:
            first = now  # that was another time
        self._said[place] = first, now
        return now - first >= PATIENCE_SECONDS

    def found(self, place: TopicPartition) -> None:
        """Records were read: who gave them is believed."""
        self._said.pop(place, None)

    async def gone(self, place: TopicPartition, offset: int, limit: float) -> range | None:
        """Return what the partition holds when the record is certainly gone; None: ask again.

        Raises LogUnavailable when nobody tells within `limit` seconds.
        """
        what = f"asking for the ends of {place.topic}"
        work = partial(ends, self._connection, place.topic, [place.partition])
        held = (await self._connection.call(what, limit, work))[place.partition]
        # At the end there is merely nothing yet: whoever was asked now knows more than who was asked before.
        if offset < held.start or (offset > held.stop and self.lacking(place)):
            self.found(place)
            return held
        self._connection.client.force_metadata_update()
        return None
