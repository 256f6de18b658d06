"""RelayPolicy's `connection`: who may connect, how often and how many at a time, and what their names must be."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatepost.core.checks.reverse_dns import Require
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.manifest.object import SpecPart
from gatepost.core.manifest.quantities import Duration

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
ClientText = Annotated[str, msgspec.Meta(min_length=2, max_length=255)]
Clients = Annotated[tuple[ClientText, ...], msgspec.Meta(max_length=1024)]


class PerHost(SpecPart, frozen=True):
    concurrent: Count | None = None
    rate_per_minute: Count | None = None
    """Connections of one address within a minute; above it 421. Own clients and allowed ones have no limit."""


class PerNetwork(SpecPart, frozen=True):
    """Neighbours share a limit, so that a host with many addresses has no more than one with a single address."""

    ipv4_prefix: Annotated[int, msgspec.Meta(ge=8, le=32)] | None = msgspec.field(name="ipv4Prefix", default=None)
    ipv6_prefix: Annotated[int, msgspec.Meta(ge=16, le=128)] | None = msgspec.field(name="ipv6Prefix", default=None)
    concurrent: Count | None = None


class Total(SpecPart, frozen=True):
    concurrent: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None
    """Sessions on the listener at each edge; 0 closes it: every client gets 421."""


class ReverseDnsSpec(SpecPart, frozen=True):
    """What the client's address must have in the DNS. Tag without an action; many honest servers have no name."""

    require: Require | None = None
    """PTR: any name. Confirmed: a name that leads back to the address."""
    action: Action | None = None
    on_error: OnError | None = None
    """When the DNS does not answer; Tempfail only where the action is more than Tag."""


class Connection(SpecPart, frozen=True):
    allow: Clients | None = None
    """Addresses, CIDRs, ranges (a-b), host names, suffixes (.partner.example); names only when forward-confirmed.

    An allowed client is not looked into: no lists, no tests of its names, no limits of perHost and perNetwork.
    """
    deny: Clients | None = None
    """As allow. The most specific rule decides; a name's rule is looked at after an address's and then decides."""
    per_host: PerHost | None = None
    per_network: PerNetwork | None = None
    total: Total | None = None
    idle_timeout: Duration | None = None
    """RFC 5321 4.5.3.2.7: at least 5 minutes; shorter is for listeners under attack."""
    banner_delay: Duration | None = None
    """How long the greeting is held back, at most 30s; a client that talks before it is refused."""
    recipients_without_message: Count | None = None
    """Accepted recipients since the last message after which a session that sends none is ended (421)."""
    reverse_dns: ReverseDnsSpec | None = msgspec.field(name="reverseDNS", default=None)
