"""RelayPolicy's `spamTraps`, and `recipients.rates`: against collectors and bombers while nobody looks."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatepost.core.manifest.object import SpecPart
from gatepost.core.manifest.quantities import Duration

AddressText = Annotated[str, msgspec.Meta(min_length=3, max_length=320)]


class TrapBans(SpecPart, frozen=True):
    client: Duration | None = None
    """24h, at most 720h; 0s: never. Own, allowed and vouched-for clients are never banned."""
    sender: Duration | None = None
    """24h, at most 720h; 0s: never. Only a sender that SPF or DKIM proves; so `authentication` is needed."""


class SpamTraps(SpecPart, frozen=True):
    """Addresses that no person uses, planted where only programs read: they need no mailbox.

    A message that names one is refused behind its final dot (550 5.7.1).
    """

    addresses: Annotated[tuple[AddressText, ...], msgspec.Meta(min_length=1, max_length=1000)]
    """Whole addresses of served domains."""
    refuse_for_all: bool | None = None
    """True. False: only the trap gets nothing; the other recipients get the message."""
    ban: TrapBans | None = None


class MessageRateSpec(SpecPart, frozen=True):
    messages: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
    window: Duration | None = None
    """1h, at most 168h."""


class MessageRatesSpec(SpecPart, frozen=True):
    """Accepted messages within a window; one more gets 450 at RCPT. Each edge counts by itself."""

    per_recipient: MessageRateSpec | None = None
    """Role addresses are never limited."""
    per_sender: MessageRateSpec | None = None
    """The login where there is one, else the envelope's sender; the null sender is not limited."""
    per_client: MessageRateSpec | None = None
    """Client networks (connection.perNetwork's prefixes). Own and allowed clients are not limited."""
