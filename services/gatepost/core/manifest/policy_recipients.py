"""RelayPolicy's `recipients` and `relay.authenticated.failures`: who guesses is slowed down and kept away."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatepost.core.manifest.object import SpecPart
from gatepost.core.manifest.policy_traps import MessageRatesSpec
from gatepost.core.manifest.quantities import Duration

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class Harvest(SpecPart, frozen=True):
    """Clients that guess recipients are banned (421 4.7.1) at all edges; without this part nobody is.

    Own clients (AUTH, relay.clients), allowed ones and those with an access rule Accept or Relay never are. Counted
    and banned are networks: connection.perNetwork's prefixes, /24 and /64 by default. Each edge counts by itself.
    """

    min_unknown: Count | None = None
    """Unknown recipients within the window (50)."""
    min_unknown_percent: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    """And this share of all recipients that the network named (50)."""
    window: Duration | None = None
    """24h."""
    ban: Duration | None = None
    """4h, at most 720h; then it ends by itself. `gatepost bans` lists, adds and removes."""


class LoginFailures(SpecPart, frozen=True):
    """Guessing passwords is made slow; without this part only the third failure ends a session."""

    delay: Duration | None = None
    """How long the answer to a wrong password waits (2s, at most 30s)."""
    most: Count | None = None
    """From so many failures on within the window, and half of all tries (20), an address (IPv6: its /64) is banned
    at all edges, and an account is slowed down: each try for it waits for `delay`, and nobody is locked out."""
    window: Duration | None = None
    """10m."""
    ban: Duration | None = None
    """1h, at most 720h."""


class Greylist(SpecPart, frozen=True):
    """The first message of a client network, sender and recipient that never met gets 450 4.7.1.

    Own clients, allowed ones, those with an access rule Accept or Relay, and role addresses are never delayed. A
    network of which five have come back is known as a whole.
    """

    enabled: bool | None = None
    """False by default: it delays mail, and large senders come back from other networks."""
    delay: Duration | None = None
    """5m, at most 24h: a client that comes back later is taken."""
    keep: Duration | None = None
    """840h from the last message on, at most 8760h."""
    ipv4_prefix: Annotated[int, msgspec.Meta(ge=8, le=32)] | None = msgspec.field(name="ipv4Prefix", default=None)
    """24: a sender may come back from a neighbour."""
    ipv6_prefix: Annotated[int, msgspec.Meta(ge=16, le=128)] | None = msgspec.field(name="ipv6Prefix", default=None)
    """64."""


class RecipientLimits(SpecPart, frozen=True):
    max: Count | None = None
    errors_before_delay: Count | None = None
    """Refused commands after which each further one of the session waits for `delay` (3, once there is a delay)."""
    delay: Duration | None = None
    """At most 30s (2s, once errorsBeforeDelay is set; else there is none). Own clients never wait."""
    errors_before_disconnect: Count | None = None
    """Refused commands at which the session ends with 421 (20)."""
    harvest: Harvest | None = None
    greylist: Greylist | None = None
    rates: MessageRatesSpec | None = None
