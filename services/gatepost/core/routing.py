"""Where a copy goes: pure decisions over what find_recipient found (LDAP routing, delivery, static routes).

LDAP routing follows the inetLocalMailRecipient attributes (draft-lachman-laser-ldap-mail-routing, as sendmail
and Postfix read them): mailHost names the host that has the mailbox, mailRoutingAddress the address to use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from gatepost.core.address import Address, parse_address
from gatepost.core.configuration import DomainConfig
from gatepost.core.envelope import Destination
from gatepost.core.ports.directory import Entry, EntryKind
from gatepost.core.recipients import Found, Kind

MAX_EXPANSION_DEPTH: Final = 10  # aliases of aliases; deeper is a loop or a mistake
MAX_EXPANSION: Final = 10_000  # addresses that one recipient may become


class GoesTo(msgspec.Struct, frozen=True):
    """A final copy for `address` at `destination`."""

    address: Address
    destination: Destination


class GoesOnAs(msgspec.Struct, frozen=True):
    """The recipient becomes these addresses, each looked at again."""

    addresses: tuple[Address, ...]


class GoesToGroup(msgspec.Struct, frozen=True):
    """The recipient becomes the accounts of a group."""

    config: DomainConfig
    group: Entry


class GoesNowhere(msgspec.Struct, frozen=True):
    """The recipient cannot be delivered: a DSN with this status (RFC 3463) and text.

    `meant`: the domain's policy takes such mail in order to send it back.
    """

    enhanced: str
    text: str
    meant: bool = False


class Dropped(msgspec.Struct, frozen=True):
    """A policy discards this copy."""

    reason: str


Route = GoesTo | GoesOnAs | GoesToGroup | GoesNowhere | Dropped


def route(found: Found, stores: Mapping[str, str]) -> Route:
    """Decide for one recipient. `stores` maps the directory's mail hosts to names of stores."""
    match found.kind:
        case Kind.NOT_SERVED:
            return _foreign(found.address)
        case Kind.UNKNOWN:
            return _unknown(found)
        case Kind.DISABLED:
            return GoesNowhere("5.2.1", "the mailbox is disabled")  # RFC 3463 3.3 X.2.1
        case Kind.LIST:
            return GoesOnAs(tuple(parse_address(target) for target in found.targets))
        case Kind.LISTED:
            assert found.config is not None
            return _deliver(found.config, found.address, found.address.key)
        case Kind.ENTRY:
            return route_entry(found, stores)


def route_entry(found: Found, stores: Mapping[str, str]) -> Route:
    """Decide for an account or group of the directory."""
    assert found.config is not None
    assert found.entry is not None
    config, entry = found.config, found.entry
    if entry.kind is EntryKind.GROUP:
        return GoesToGroup(config, entry)
    host = entry.mail_host.lower()
    target = parse_address(entry.routing_address) if entry.routing_address else None
    if host and host not in stores:
        return GoesTo(target or found.address, Destination(hosts=(f"[{host}]",)))
    if target is not None and target.key not in entry.addresses:
        return GoesOnAs((target,))
    if entry.store or host:
        return GoesTo(found.address, Destination(store=entry.store or stores[host], mailbox=entry.address))
    return _deliver(config, found.address, entry.address)


def _foreign(address: Address) -> Route:
    if address.is_literal:
        literal = address.domain[1:-1].removeprefix("IPv6:")
        return GoesTo(address, Destination(hosts=(f"[{literal}]",)))
    return GoesTo(address, Destination(domain=address.domain))


def _unknown(found: Found) -> Route:
    assert found.config is not None
    match found.config.unknown.value:
        case "DeliverTo":
            return GoesOnAs((parse_address(found.config.unknown_deliver_to),))
        case "Discard":
            return Dropped("recipients.unknown: Discard")
        case action:
            # RFC 3463 3.2 X.1.1
            return GoesNowhere("5.1.1", "no such user here", meant=action == "Bounce")


def _deliver(config: DomainConfig, address: Address, mailbox: str) -> Route:
    match config.delivery.kind:
        case "Mailbox":
            return GoesTo(address, Destination(store=config.delivery.store, mailbox=mailbox))
        case "Relay":
            return GoesTo(address, Destination(domain=address.domain, hosts=config.delivery.hosts))
        case _:
            return Dropped("delivery: Discard")
