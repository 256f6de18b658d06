"""What an import has understood so far, and what it has not: nothing of the source is dropped silently."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from gatepost.core.address import AddressError, parse_address
from gatepost.core.domain import DomainError, canonical_domain


class Fate(Enum):
    """What became of a line that has no exact counterpart."""

    LOST = "not translated"
    DIFFERS = "translated, with a difference"


@dataclass(frozen=True)
class Place:
    """Where a line of the source stands; `text` is the line as it is written."""

    file: str
    line: int
    text: str


@dataclass(frozen=True)
class Note:
    place: Place
    fate: Fate
    reason: str


@dataclass
class DomainPlan:
    """A MailDomain in the making. `hosts` None: mailboxes here; else its mail goes on to them, in order."""

    domain: str
    hosts: list[str] | None = None
    any_recipient: bool = False
    subdomains: bool = False
    alias_domains: list[str] = field(default_factory=list)
    aliases: dict[str, list[str]] = field(default_factory=dict)
    unknown_to: str = ""


@dataclass
class Plan:
    """Everything that will be written. `domains` by canonical name; `access` are lines of derived access rules.

    `primary` is the domain of the local users, `origin` completes names without a domain (empty: primary too).
    """

    source: str
    hostname: str = ""
    primary: str = ""
    origin: str = ""
    domains: dict[str, DomainPlan] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)
    access: list[str] = field(default_factory=list)
    smart_hosts: list[str] = field(default_factory=list)
    separators: list[str] = field(default_factory=lambda: ["+"])
    policy: dict[str, object] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def lost(self, place: Place, reason: str) -> None:
        self.notes.append(Note(place, Fate.LOST, reason))

    def differs(self, place: Place, reason: str) -> None:
        self.notes.append(Note(place, Fate.DIFFERS, reason))

    @property
    def main(self) -> str:
        """The domain that completes a recipient without one."""
        return self.origin if self.origin in self.domains else self.primary

    def domain(self, name: str) -> DomainPlan:
        """The plan of a domain, made when it is new."""
        return self.domains.setdefault(name, DomainPlan(name))

    def serves(self, name: str) -> DomainPlan | None:
        """The plan that a domain belongs to: its own, or the one that it is an alias of."""
        found = self.domains.get(name)
        if found is not None:
            return found
        return next((plan for plan in self.domains.values() if name in plan.alias_domains), None)

    def set(self, path: str, value: object) -> None:
        """Set a field of the policy's spec, as "smtp.limits.messageSize"."""
        *parents, last = path.split(".")
        target = self.policy
        for parent in parents:
            child = target.setdefault(parent, {})
            assert isinstance(child, dict)
            target = child
        target[last] = value

    def full(self, text: str) -> str | None:
        """An address with the domain `origin` where it has none; None when it is no address (a program, a file)."""
        address = text if "@" in text else f"{text}@{self.origin or self.primary}"
        try:
            return str(parse_address(address))
        except AddressError:
            return None


def domain_of(text: str) -> str | None:
    """The canonical domain, or None when the text is none."""
    try:
        return canonical_domain(text)
    except DomainError:
        return None
