"""What an accepted message becomes: its final copies, and what cannot be delivered."""

from __future__ import annotations

import msgspec

from gatepost.core.envelope import Envelope
from gatepost.core.leaving import leaving
from gatepost.core.memory_body import MemoryBody
from gatepost.core.ports.store import Delivery
from gatepost.core.routing import GoesNowhere, GoesTo
from gatepost.core.trace_lines import delivery_lines


class Copy(msgspec.Struct, frozen=True):
    """A final copy. `original` is the recipient that the client named; `forwarded` when the address changed."""

    original: str
    goes: GoesTo
    forwarded: bool


class Problem(msgspec.Struct, frozen=True):
    """A recipient that cannot be delivered: becomes a DSN."""

    original: str
    address: str
    goes: GoesNowhere


class Expansion(msgspec.Struct, frozen=True):
    """What all recipients of a message come to; `dropped` is how many copies are for nobody."""

    copies: tuple[Copy, ...]
    problems: tuple[Problem, ...]
    dropped: int


class NearCopy(msgspec.Struct, frozen=True, gc=False):
    """A copy for a store of this process: its own envelope, and the message, which is never one by reference."""

    envelope: Envelope
    inline: bytes
    traceparent: bytes | None

    @property
    def store(self) -> str:
        assert self.envelope.destination is not None
        return self.envelope.destination.store

    def delivery(self) -> Delivery:
        envelope = self.envelope
        assert envelope.destination is not None
        return Delivery(
            id=envelope.id,
            mailbox=envelope.destination.mailbox,
            recipient=envelope.recipients[0].address,
            reverse_path=envelope.reverse_path,
            prepend=delivery_lines(envelope),
            body=leaving(MemoryBody(self.inline, envelope.sha256), envelope.strip, envelope.insert),
            received_ms=envelope.received_ms,
        )
