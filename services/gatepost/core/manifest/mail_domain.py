"""MailDomain: a domain we take mail for: its recipients, where their mail goes, how its senders' mail leaves.

Unset means inherited: compile applies the defaults. tools/crdgen makes the CRD from these types.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import msgspec

from gatepost.core.manifest.call_ahead import CallAheadSource
from gatepost.core.manifest.object import (
    API_VERSION,
    AddressText,
    DomainText,
    HostText,
    LocalPartText,
    Metadata,
    NameRef,
    ObjectName,
    SpecPart,
)
from gatepost.core.manifest.quantities import Duration, Size


class DirectorySource(SpecPart, frozen=True, tag="Directory", tag_field="type"):
    """Recipients are those that a directory of the Settings knows."""

    directory_ref: NameRef


class StaticSource(SpecPart, frozen=True, tag="Static", tag_field="type"):
    """Recipients are listed here."""

    addresses: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=320)], ...],
        msgspec.Meta(min_length=1, max_length=10000),
    ]
    """Addresses, or local parts of this domain."""


class AnySource(SpecPart, frozen=True, tag="Any", tag_field="type"):
    """Every local part is taken. Warned about: what the next hop refuses becomes a bounce to a stranger."""


RecipientSource = DirectorySource | StaticSource | CallAheadSource | AnySource


class UnknownAction(Enum):
    REJECT = "Reject"
    DELIVER_TO = "DeliverTo"
    DISCARD = "Discard"
    BOUNCE = "Bounce"


class Subaddressing(SpecPart, frozen=True):
    separators: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=1)], ...], msgspec.Meta(max_length=4)
    ] = ("+",)
    """An exact address wins over one with a detail behind a separator (RFC 5233)."""


class Recipients(SpecPart, frozen=True):
    source: RecipientSource
    unknown: UnknownAction | None = None
    """Reject (the default) answers 550 5.1.1 to RCPT. Bounce takes the mail and sends a notification, to verified
    return paths only. Warned about: spammers learn nothing of it, and senders whose names they forge get it."""
    unknown_deliver_to: AddressText | None = None
    subaddressing: Subaddressing | None = None
    role_addresses: Annotated[dict[LocalPartText, AddressText], msgspec.Meta(max_length=32)] | None = None
    """RFC 2142 addresses and who gets them; reachable even for refused clients."""
    aliases: (
        Annotated[
            dict[LocalPartText, Annotated[tuple[AddressText, ...], msgspec.Meta(min_length=1, max_length=500)]],
            msgspec.Meta(max_length=10000),
        ]
        | None
    ) = None
    """Local part -> addresses, inside or outside."""
    max_message_size: Size | None = None


class MailboxDelivery(SpecPart, frozen=True, tag="Mailbox", tag_field="type"):
    """Into a store of the Settings; without a name the first one."""

    store: ObjectName | None = None


class RelayDelivery(SpecPart, frozen=True, tag="Relay", tag_field="type"):
    """On to other hosts, in order: "[name]:port" or "[IP]" without MX lookup, "name" with."""

    hosts: Annotated[tuple[HostText, ...], msgspec.Meta(min_length=1, max_length=16)]


class DiscardDelivery(SpecPart, frozen=True, tag="Discard", tag_field="type"):
    """Accepted and thrown away."""


DeliverySpec = MailboxDelivery | RelayDelivery | DiscardDelivery


class SmartHost(SpecPart, frozen=True):
    hosts: Annotated[tuple[HostText, ...], msgspec.Meta(min_length=1, max_length=16)]


class Retry(SpecPart, frozen=True):
    tiers: Annotated[tuple[Duration, ...], msgspec.Meta(min_length=1, max_length=16)] | None = None
    """Out of 1m 5m 15m 30m 1h 2h 4h; the last one repeats until expireAfter."""
    expire_after: Duration | None = None
    bounce_expire_after: Duration | None = None


class MasqueradeScope(Enum):
    LISTED = "Listed"
    ENTIRE_DOMAIN = "EntireDomain"


class Masquerade(SpecPart, frozen=True):
    """Senders' addresses at inner hosts leave with another domain (sendmail's MASQUERADE_AS)."""

    as_domain: DomainText = msgspec.field(name="as")
    """The domain that the world sees: this one, one of aliasDomains, or one above them."""
    scope: MasqueradeScope | None = None
    """Listed (the default): addresses at exactly these domains. EntireDomain: also at all hosts below them."""
    domains: Annotated[tuple[DomainText, ...], msgspec.Meta(min_length=1, max_length=64)] | None = None
    """Domains that are hidden: this one, aliasDomains, or names below them; unset: this one."""
    envelope: bool | None = None
    """Whether the reverse-path is rewritten as well, not only From, Sender, Reply-To and their Resent- forms."""
    exposed_users: Annotated[tuple[LocalPartText, ...], msgspec.Meta(max_length=64)] | None = None
    """Local parts that keep their host, such as root, so that one sees which machine wrote."""


class Outbound(SpecPart, frozen=True):
    """Mail of this domain's senders. Of the default domain also mail with the null sender or a foreign one."""

    smart_host: SmartHost | None = None
    helo_name: HostText | None = None
    masquerade: Masquerade | None = None
    retry: Retry | None = None


class MailDomainSpec(SpecPart, frozen=True):
    domain: DomainText
    recipients: Recipients
    default: bool | None = None
    """Completes unqualified names such as <postmaster>."""
    subdomains: bool | None = None
    alias_domains: Annotated[tuple[DomainText, ...], msgspec.Meta(max_length=256)] | None = None
    delivery: DeliverySpec | None = None
    outbound: Outbound | None = None


class MailDomain(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    api_version: str
    kind: str
    metadata: Metadata
    spec: MailDomainSpec
    status: dict[str, Any] = {}


KIND = "MailDomain"
PLURAL = "maildomains"
__all__ = ["API_VERSION", "KIND", "PLURAL", "MailDomain", "MailDomainSpec"]
