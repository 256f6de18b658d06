"""Which messages' events are written when not all are: the same ones in every process, without asking anybody."""

from __future__ import annotations

import hashlib
from typing import Final

from gatepost.core import event_kinds

# What happens to every message that goes well. All other kinds are rare, or what somebody will ask about.
SAMPLED: Final = frozenset({event_kinds.ACCEPTED, event_kinds.ROUTED, event_kinds.STORED, event_kinds.SENT})
# The part of an id that all that comes out of a message shares with it (core/ids): the moment of its acceptance.
_SHARED: Final = 10
_BITS: Final = 64


def in_sample(message_id: str, share: float) -> bool:
    """Whether a message is in a sample of `share` (0 to 1) of all messages.

    Decided by a hash of what the ids of a message, of its copies and of notifications about it have in common, so
    that a message's whole story is in the sample or none of it. A larger share contains a smaller one. Messages of
    the same millisecond are in it together.
    """
    if share >= 1:
        return True
    shared = message_id[:_SHARED].encode("utf-8", "surrogateescape")
    number = int.from_bytes(hashlib.blake2b(shared, digest_size=_BITS // 8).digest(), "big")
    return number < share * (1 << _BITS)


def is_written(kind: str, message_id: str, share: float) -> bool:
    """Whether an event is written: always, unless it is one of SAMPLED of a message outside of the sample."""
    return kind not in SAMPLED or in_sample(message_id, share)
