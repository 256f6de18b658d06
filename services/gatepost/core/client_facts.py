"""What was found out about a client, its HELO name and its sender's domain: facts without a judgement."""

from __future__ import annotations

from enum import Enum

import msgspec


class Outcome(Enum):
    """What the DNS said. FAILED: no usable answer in time, which never means 'does not exist'."""

    NOT_ASKED = "NotAsked"
    FOUND = "Found"
    ABSENT = "Absent"
    FAILED = "Failed"


class Listing(msgspec.Struct, frozen=True):
    """The answer of one list about one subject. `place` is the list's in the policy; `codes` its A records."""

    place: int
    subject: str
    outcome: Outcome
    codes: tuple[str, ...] = ()


class ClientFacts(msgspec.Struct, frozen=True):
    """`names` are those of the PTR records, `confirmed` the ones of them that lead back to the address.

    `forward` is FAILED when a name could not be looked up and none was confirmed.
    """

    address: str
    reverse: Outcome = Outcome.NOT_ASKED
    forward: Outcome = Outcome.NOT_ASKED
    names: tuple[str, ...] = ()
    confirmed: tuple[str, ...] = ()
    listings: tuple[Listing, ...] = ()


class HeloFacts(msgspec.Struct, frozen=True):
    """`hosts` are the addresses behind the name: its own (A, AAAA) and those of its MX hosts."""

    name: str = ""
    resolves: Outcome = Outcome.NOT_ASKED
    hosts: tuple[str, ...] = ()
    complete: bool = True
    listings: tuple[Listing, ...] = ()


class SenderFacts(msgspec.Struct, frozen=True):
    """`resolves`: whether the domain can get mail, by MX or by its own address (RFC 5321 5.1)."""

    domain: str = ""
    resolves: Outcome = Outcome.NOT_ASKED
    null_mx: bool = False
    listings: tuple[Listing, ...] = ()
