"""RelayPolicy's `target`, `mode`, `rollout` and exemptions: which layer a policy is, and how much of it acts."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import msgspec

from gatepost.core.manifest.object import ObjectName, SpecPart

LabelKey = Annotated[str, msgspec.Meta(min_length=1, max_length=317)]  # a prefix of 253, a slash, a name of 63
LabelValue = Annotated[str, msgspec.Meta(max_length=63)]


class ListenersTarget(SpecPart, frozen=True, tag="Listeners", tag_field="type"):
    """Everything these listeners decide."""

    listeners: Annotated[tuple[ObjectName, ...], msgspec.Meta(min_length=1, max_length=64)]


class LabelSelector(SpecPart, frozen=True):
    match_labels: Annotated[dict[LabelKey, LabelValue], msgspec.Meta(min_length=1, max_length=16)]
    """A MailDomain is selected that has all of them."""


class DomainSelection(SpecPart, frozen=True):
    """MailDomains of the policy's own namespace: exactly one of names and selector."""

    names: Annotated[tuple[ObjectName, ...], msgspec.Meta(min_length=1, max_length=1000)] | None = None
    """Names of MailDomain objects."""
    selector: LabelSelector | None = None


class MailDomainsTarget(SpecPart, frozen=True, tag="MailDomains", tag_field="type"):
    """What is in force for recipients of these domains, laid over the listener's policy (docs/merge-table.md)."""

    mail_domains: DomainSelection


Target = ListenersTarget | MailDomainsTarget


class Mode(Enum):
    ENFORCE = "Enforce"
    SHADOW = "Shadow"


class Rollout(SpecPart, frozen=True):
    percent: Annotated[int, msgspec.Meta(ge=0, le=100)]
    """Of the clients, by a hash of their network (/24, /64); the rest stays with the policy in force. Below 100 the
    policy stands beside that one, as a Shadow does; whoever is in stays in when it is raised."""


class Exemption(Enum):
    """What a listener's policy looks for, and a domain may switch off for its recipients where that is allowed."""

    DNSBL = "Dnsbl"
    GREYLIST = "Greylist"
    HELO = "Helo"
    REVERSE_DNS = "ReverseDNS"
    SENDER_DOMAIN = "SenderDomain"
    HEADERS = "Headers"
    SCANNERS = "Scanners"


Exemptions = Annotated[tuple[Exemption, ...], msgspec.Meta(max_length=16)]
