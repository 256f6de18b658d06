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
ALARM: Final = "alarm"
JUDGED: Final = "judged"
SHADOWED: Final = "shadowed"
LISTED: Final = "listed"
BANNED: Final = "banned"
UNBANNED: Final = "unbanned"

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
    JUDGED: "a check found something about a client, its greeting or its sender; the action says what follows",
    SHADOWED: "a policy in Shadow would have decided this; nothing was done because of it",
    LISTED: "one of our own addresses is on a list of bad senders: others may refuse our mail",
    BANNED: "kept away for a while at all edges: a network or a sender; an account is slowed down",
    UNBANNED: "an administrator has lifted a ban",
    ALARM: "an edge saw too much of something that looks like abuse; nothing was refused because of it",
}
