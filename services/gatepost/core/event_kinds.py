"""The kinds of events, in one table with their meaning; `gatepost trace` prints the meanings."""

from __future__ import annotations

from typing import Final

ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"
ROUTED: Final = "routed"
STORED: Final = "stored"
SENT: Final = "sent"
DEFERRED: Final = "deferred"
FAILED: Final = "failed"
NOTIFIED: Final = "notified"
DISCARDED: Final = "discarded"
QUARANTINED: Final = "quarantined"

MEANING: Final[dict[str, str]] = {
    ACCEPTED: "answered with 250: the message is durable in the log",
    REFUSED: "answered with 4xx or 5xx; nothing was kept",
    ROUTED: "each recipient has a destination",
    STORED: "in the mailbox",
    SENT: "the next hop answered 250",
    DEFERRED: "a temporary failure; tried again later",
    FAILED: "a permanent failure for this recipient",
    NOTIFIED: "a delivery status notification to the sender was accepted",
    DISCARDED: "dropped because a policy says so",
    QUARANTINED: "stopped and kept for a person to look at",
}
