"""The one vocabulary of verdicts: what a check may decide, and what to do when a dependency does not answer."""

from __future__ import annotations

from enum import Enum


class Action(Enum):
    """What is done with a connection, a sender, a recipient or a message."""

    ACCEPT = "Accept"
    REJECT = "Reject"
    DEFER = "Defer"
    DISCARD = "Discard"
    QUARANTINE = "Quarantine"
    TAG = "Tag"
    RELAY = "Relay"


class OnError(Enum):
    """What is done when a check cannot be made because something outside does not answer."""

    TEMPFAIL = "Tempfail"
    ACCEPT = "Accept"
    IGNORE = "Ignore"
