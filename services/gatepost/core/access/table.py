"""Access rules compiled into dicts: a query costs as many look-ups with 100,000 rules as with 100.

A host name or address is looked up form by form (core/access/keys.py), a client address once for each length of
prefix that any rule has. Several tables make one chain: the more specific form wins over all of them, and at each
form the earlier table, so that a local exception stays one beside a list that was downloaded.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from gatepost.core.access.entry import AccessEntry, AccessError, Tag, check_entry
from gatepost.core.access.keys import (
    Network,
    client_networks,
    mailbox_forms,
    mailbox_key,
    name_forms,
    name_key,
)
from gatepost.core.address import Address
from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.manifest.actions import Action

_BITS: Final = {4: 32, 6: 128}


class AccessRule(msgspec.Struct, frozen=True):
    """What was found: the key as it is written, what is done, and where the rule stands (`origin`)."""

    key: str
    action: Action | None
    code: int
    enhanced: str
    text: str
    origin: str


class AccessTable:
    """The rules of one place, in dicts by what they are compared with. Not changed once it is built."""

    def __init__(self, rules: Iterable[tuple[AccessEntry, str]]) -> None:
        """`rules` are entries, each with where it stands. Of two with one key the first counts, as with makemap,
        and one with a tag comes before one without. Raises AccessError, with the place in front.
        """
        self.networks: dict[Network, AccessRule] = {}
        self.hosts: dict[str, AccessRule] = {}
        self.helo: dict[str, AccessRule] = {}
        self.senders: dict[str, AccessRule] = {}
        self.recipients: dict[str, AccessRule] = {}
        self.size = 0
        untagged = []
        for entry, origin in rules:
            self.size += 1
            if entry.tag is Tag.ANY:
                untagged.append((entry, origin))
            else:
                self._add(entry, origin)
        for entry, origin in untagged:
            self._add(entry, origin)
        self.lengths = {
            version: tuple(sorted({n.length for n in self.networks if n.version == version}, reverse=True))
            for version in (4, 6)
        }
        self.lets_clients_relay = any(
            rule.action is Action.RELAY for rules in (self.networks, self.hosts) for rule in rules.values()
        )

    @property
    def by_host_name(self) -> bool:
        """Whether the client's confirmed name can matter: only then it is worth finding out."""
        return bool(self.hosts)

    def _add(self, entry: AccessEntry, origin: str) -> None:
        rule = AccessRule(entry.key, entry.action, entry.code, entry.enhanced, entry.text, origin)
        try:
            check_entry(entry)
            match entry.tag:
                case Tag.CONNECT:
                    self._add_client(rule)
                case Tag.HELO:
                    self.helo.setdefault(name_key(entry.key), rule)
                case Tag.FROM:
                    self.senders.setdefault(mailbox_key(entry.key, Tag.FROM), rule)
                case Tag.TO:
                    self.recipients.setdefault(mailbox_key(entry.key, Tag.TO), rule)
                case Tag.ANY:
                    self._add_untagged(rule)
        except AccessError as error:
            raise AccessError(f"{origin}: {error}") from None

    def _add_client(self, rule: AccessRule) -> bool:
        """Add a key of clients; True when it is a network, which no sender or recipient can be."""
        networks = client_networks(rule.key)
        for network in networks:
            self.networks.setdefault(network, rule)
        if not networks:
            self.hosts.setdefault(name_key(rule.key), rule)
        return bool(networks)

    def _add_untagged(self, rule: AccessRule) -> None:
        """For client, sender and recipient, as sendmail's keys without a tag with blocklist_recipients."""
        is_name = "@" not in rule.key and not rule.key.startswith(("<", "["))
        if is_name and self._add_client(rule):
            return
        # RELAY says of a sender no more than OK does: it is a right of clients and destinations.
        as_sender = msgspec.structs.replace(rule, action=Action.ACCEPT) if rule.action is Action.RELAY else rule
        self.senders.setdefault(mailbox_key(rule.key, Tag.FROM), as_sender)
        if rule.key != "<>":
            self.recipients.setdefault(mailbox_key(rule.key, Tag.TO), rule)


class AccessChain:
    """Tables that are asked together, the earlier ones first. A rule whose action is None ends the search."""

    def __init__(self, tables: Sequence[AccessTable]) -> None:
        self.tables = tuple(table for table in tables if table.size)
        self.lengths = {
            version: tuple(sorted({length for t in self.tables for length in t.lengths[version]}, reverse=True))
            for version in (4, 6)
        }
        self.by_host_name = any(table.by_host_name for table in self.tables)
        self._networks = tuple(table.networks for table in self.tables if table.networks)
        self._hosts = tuple(table.hosts for table in self.tables if table.hosts)
        self._helo = tuple(table.helo for table in self.tables if table.helo)
        self._senders = tuple(table.senders for table in self.tables if table.senders)
        self._recipients = tuple(table.recipients for table in self.tables if table.recipients)

    def __bool__(self) -> bool:
        return bool(self.tables)

    def client(self, address: str, hosts: Sequence[str]) -> AccessRule | None:
        """The rule for a client by one of its confirmed host names, then by its address.

        The name comes first, as in sendmail's check_relay, so that no rule for a network hides one for a host.
        """
        for host in hosts if self._hosts else ():
            found = _first(name_forms(_name(host)), self._hosts)
            if found is not None:
                return found
        return self._by_network(address) if self._networks else None

    def _by_network(self, address: str) -> AccessRule | None:
        version, number = _number(address)
        width = _BITS[version]
        for length in self.lengths[version]:
            key = Network(version, length, number >> (width - length))
            for rules in self._networks:
                rule = rules.get(key)
                if rule is not None:
                    return rule
        return None

    def helo(self, name: str) -> AccessRule | None:
        """The rule for the name that the client said in HELO or EHLO."""
        return _first(name_forms(_name(name)), self._helo) if self._helo else None

    def sender(self, sender: Address | None) -> AccessRule | None:
        return _first(mailbox_forms(sender), self._senders) if self._senders else None

    def recipient(self, recipient: Address) -> AccessRule | None:
        return _first(mailbox_forms(recipient), self._recipients) if self._recipients else None


def _first(forms: Iterator[str], tables: Sequence[dict[str, AccessRule]]) -> AccessRule | None:
    for form in forms:
        for rules in tables:
            rule = rules.get(form)
            if rule is not None:
                return rule
    return None


def _name(text: str) -> str:
    """A name that a client said, canonical where it can be; a key never equals another."""
    try:
        return canonical_domain(text)
    except DomainError:
        return text.lower()


@lru_cache(maxsize=65536)
def _number(address: str) -> tuple[int, int]:
    """IPv4-mapped IPv6 addresses (RFC 4291 2.5.5.2) are compared as IPv4."""
    parsed = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return parsed.version, int(parsed)
