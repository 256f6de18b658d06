"""The topics: name, what may remove their records, and partitions, in one table (docs/life-of-a-message.md)."""

from __future__ import annotations

from typing import Final

import msgspec

from gatepost.core.ports.log import Cleanup, TopicSpec

# Fixed tiers: all in one topic wait equally long, so they fall due in the order in which they were appended.
RETRY_TIERS: Final[dict[str, int]] = {
    "1m": 60,
    "5m": 300,
    "15m": 900,
    "30m": 1800,
    "1h": 3600,
    "2h": 7200,
    "4h": 14400,
}

_DAY_MS: Final = 86_400_000
# A body must outlive every copy that may still be tried: the longest expireAfter plus a day.
CONTENT_RETENTION_MS: Final = 8 * _DAY_MS
EVENTS_RETENTION_MS: Final = 7 * _DAY_MS
KEPT_RETENTION_MS: Final = 30 * _DAY_MS
STATE_RETENTION_MS: Final = 35 * _DAY_MS


class Topics(msgspec.Struct, frozen=True):
    """The names behind `prefix` (`<namespace>.<release>.`, or nothing standalone)."""

    prefix: str = ""

    @property
    def accepted(self) -> str:
        return f"{self.prefix}accepted"

    @property
    def relay(self) -> str:
        return f"{self.prefix}relay"

    def mailbox(self, store: str) -> str:
        return f"{self.prefix}mailbox.{store}"

    def retry(self, tier: str) -> str:
        return f"{self.prefix}retry.{tier}"

    @property
    def content_transit(self) -> str:
        return f"{self.prefix}content.transit"

    @property
    def content_kept(self) -> str:
        return f"{self.prefix}content.kept"

    @property
    def held(self) -> str:
        return f"{self.prefix}held"

    @property
    def quarantine(self) -> str:
        return f"{self.prefix}quarantine"

    @property
    def control(self) -> str:
        return f"{self.prefix}control"

    @property
    def events(self) -> str:
        return f"{self.prefix}events"

    @property
    def config(self) -> str:
        return f"{self.prefix}config"

    @property
    def acks(self) -> str:
        return f"{self.prefix}acks"

    @property
    def state(self) -> str:
        return f"{self.prefix}state"

    def group(self, service: str) -> str:
        """The consumer group of a service."""
        return f"{self.prefix}{service}"

    def specs(self, stores: tuple[str, ...], partitions: int) -> tuple[TopicSpec, ...]:
        """All topics of an installation with these stores; work topics get `partitions`."""

        def work(name: str) -> TopicSpec:
            return TopicSpec(name, Cleanup.TRIM, partitions)

        return (
            work(self.accepted),
            work(self.relay),
            *(work(self.mailbox(store)) for store in stores),
            *(work(self.retry(tier)) for tier in RETRY_TIERS),
            TopicSpec(self.content_transit, Cleanup.EXPIRE, partitions, CONTENT_RETENTION_MS),
            TopicSpec(self.content_kept, Cleanup.EXPIRE, partitions, KEPT_RETENTION_MS),
            TopicSpec(self.held, Cleanup.EXPIRE, 1, KEPT_RETENTION_MS),
            TopicSpec(self.quarantine, Cleanup.EXPIRE, 1, KEPT_RETENTION_MS),
            TopicSpec(self.control, Cleanup.COMPACT, 1),
            TopicSpec(self.events, Cleanup.EXPIRE, partitions, EVENTS_RETENTION_MS),
            TopicSpec(self.config, Cleanup.COMPACT, 1),
            TopicSpec(self.acks, Cleanup.COMPACT_EXPIRE, 1, EVENTS_RETENTION_MS),
            TopicSpec(self.state, Cleanup.COMPACT_EXPIRE, partitions, STATE_RETENTION_MS),
        )
