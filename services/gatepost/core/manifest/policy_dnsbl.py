"""RelayPolicy's `dnsbl`: lists in the DNS, and our own addresses in them; `senders`: the sender's domain."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatepost.core.checks.dnsbl import Subject
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.manifest.object import DomainText, SpecPart
from gatepost.core.manifest.quantities import Duration

CodeText = Annotated[str, msgspec.Meta(min_length=7, max_length=40)]
Weight = Annotated[int, msgspec.Meta(ge=-100, le=100)]


class DnsblListSpec(SpecPart, frozen=True):
    zone: DomainText
    codes: Annotated[tuple[CodeText, ...], msgspec.Meta(max_length=32)] | None = None
    """As 127.0.0.2, 127.0.0.2-127.0.0.11, or with octets *, [1..3], &12 (one of the bits). None: any listing."""
    subject: Subject | None = None
    weight: Weight | None = None
    """Negative for a list of the good; the weights of all that list the client are added."""
    action: Action | None = None
    text: Annotated[str, msgspec.Meta(max_length=300)] | None = None
    """What the client reads; $subject, $zone and $code are replaced."""
    on_error: OnError | None = None
    """When the list does not answer. Ignore without it: a dead list must not stop mail."""


class Watch(SpecPart, frozen=True):
    addresses: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=2, max_length=45)], ...], msgspec.Meta(max_length=64)
    ]
    """Our own public addresses, looked up in the lists of client addresses; a listing is told, not acted on."""
    every: Duration | None = None


class Dnsbl(SpecPart, frozen=True):
    threshold: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    standard: bool | None = None
    """True: zen.spamhaus.org as well, refusing what it lists (127.0.0.2 to 127.0.0.11). Its operator answers only
    resolvers of your own, not public ones, and large sites need a contract."""
    deadline: Duration | None = None
    """For all lists together, at most 30s; a list that has not answered by then has failed."""
    lists: Annotated[tuple[DnsblListSpec, ...], msgspec.Meta(max_length=32)] | None = None
    watch: Watch | None = None


class RoutedAddresses(SpecPart, frozen=True):
    """Strangers' senders and recipients with a route in them, each off by default; none is ever followed."""

    source_route: Action | None = None
    """`@a,@b:user@c`; as a recipient it is always refused."""
    percent_hack: Action | None = None
    """`user%there@here`."""
    bang_path: Action | None = None
    """`there!user@here`."""


class Senders(SpecPart, frozen=True):
    unresolvable_domain: Action | None = None
    """When the sender's domain has neither MX nor address, or a null MX; own clients are exempt."""
    on_error: OnError | None = None
    """When the DNS does not answer; Tempfail without it, where the action is more than Tag."""
    addresses: RoutedAddresses | None = None
    spoofed_local: Action | None = None
    """When a stranger names a sender of a domain served here; a login, a right to relay and SPF's pass spare."""
    local_must_exist: bool | None = None
    """Refuses senders of served domains that do not exist (550 5.1.0), whoever names them."""
