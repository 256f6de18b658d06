"""Check `message-rate`: too many messages to one mailbox, from one sender or from one client within a window.

Mail bombing comes from one host or from thousands, for one victim or in one victim's name; a limit for each of the
three works while nobody looks. Answers are temporary: who is honest comes again (RFC 3463 3.3, X.2.1; 3.8, X.7.1).
Pure; the counts are a HarvestWatch's (core/checks/harvest.py), which is bounded.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from gatepost.core.reply import Reply

CHECK: Final = "message-rate"


class Subject(Enum):
    """Who is counted. The value stands in the events."""

    RECIPIENT = "recipient"
    SENDER = "sender"
    CLIENT = "client"


class Rate(msgspec.Struct, frozen=True, omit_defaults=True):
    """At most `messages` within `window` seconds."""

    messages: int
    window: float = 3600.0


class MessageRates(msgspec.Struct, frozen=True, omit_defaults=True):
    """None: not limited."""

    recipient: Rate | None = None
    sender: Rate | None = None
    client: Rate | None = None

    def of(self, subject: Subject) -> Rate | None:
        match subject:
            case Subject.RECIPIENT:
                return self.recipient
            case Subject.SENDER:
                return self.sender
            case Subject.CLIENT:
                return self.client


MAILBOX_FLOODED: Final = Reply(450, "4.2.1", "this mailbox gets more mail than it may, please try later", CHECK)
SENDER_TOO_BUSY: Final = Reply(450, "4.7.1", "this sender sends more mail than it may, please try later", CHECK)
CLIENT_TOO_BUSY: Final = Reply(450, "4.7.1", "your network sends more mail than it may, please try later", CHECK)

_REPLIES: Final = {
    Subject.RECIPIENT: MAILBOX_FLOODED,
    Subject.SENDER: SENDER_TOO_BUSY,
    Subject.CLIENT: CLIENT_TOO_BUSY,
}


def evaluate(subject: Subject, rate: Rate, accepted: int) -> Reply | None:
    """The refusal of one more message, when so many of the subject were accepted within the window."""
    return _REPLIES[subject] if accepted >= rate.messages else None
