"""Mailbox stores: Maildir on an own volume, or another program behind LMTP."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import msgspec

from gatepost.core.ports.content import Body


class StoreOutcome(Enum):
    STORED = "Stored"
    DEFERRED = "Deferred"
    REFUSED = "Refused"


class Delivery(msgspec.Struct, frozen=True):
    """One message for one mailbox. `id` is the derived id of this copy; `prepend` goes in front of the body."""

    id: str
    mailbox: str
    recipient: str
    reverse_path: str
    prepend: bytes
    body: Body
    received_ms: int


class StoreResult(msgspec.Struct, frozen=True):
    """What became of a delivery; for the two bad ones the reply in SMTP's terms, and who said it."""

    outcome: StoreOutcome
    code: int = 250
    enhanced: str = "2.0.0"
    text: str = ""
    remote: str = ""


class Store(Protocol):
    """A store never raises for one delivery's sake: each has its own result, in order."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def deliver(self, deliveries: Sequence[Delivery]) -> Sequence[StoreResult]:
        """Store all; when this returns, what is STORED is durable."""
