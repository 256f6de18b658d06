"""A broker says that an offset is not there: when that is believed.

A broker that stood still (a stopped process, a virtual machine that was moved) goes on as the leader until the
controller tells it that there is another, and has nothing of what was written meanwhile. Whoever still asks it, by
metadata that is old as well, hears that a record is beyond the end (the case of Kafka's KIP-320). So only the start
of a partition, which never moves back, is believed at once; the end only when it was said again and again.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiokafka.structs import TopicPartition

from gatepost.backends.log_kafka.connection import Connection
from gatepost.backends.log_kafka.ends import ends

# Some twenty questions with new metadata, of which each may come from any broker.
PATIENCE_SECONDS: Final = 5.0
BACKOFF_SECONDS: Final = 0.2


class Disbelief:
    """Since when the leader of each partition has known less than we do."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._since: dict[TopicPartition, float] = {}

    def lacking(self, place: TopicPartition) -> bool:
        """Note that a record is not there yet; True once that has lasted for PATIENCE_SECONDS, and is believed."""
        self._connection.client.force_metadata_update()
        now = self._loop.time()
        return now - self._since.setdefault(place, now) >= PATIENCE_SECONDS

    def found(self, place: TopicPartition) -> None:
        """Records were read: who gave them is believed."""
        if self._since:
            self._since.pop(place, None)

    async def gone(self, place: TopicPartition, offset: int) -> range | None:
        """Return what the partition holds when the record is certainly gone; None: ask again. Raises KafkaError."""
        held = (await ends(self._connection, place.topic, [place.partition]))[place.partition]
        if offset < held.start:
            return held
        if offset <= held.stop:  # at the end there is merely nothing yet
            self._connection.client.force_metadata_update()
            return None
        if not self.lacking(place):
            return None
        self.found(place)
        return held
