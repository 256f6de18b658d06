"""What a directory's attributes mean: from an LDAP entry to core.ports.directory.Entry, for both backends.

Also the distinguished names (RFC 4514) in a form that can be compared, and the rule for an address that two
entries claim.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from gatepost.core.address import AddressError, parse_address
from gatepost.core.manifest.quantities import SIZE_PATTERN, size_bytes
from gatepost.core.manifest.settings import AttributeMap
from gatepost.core.password import clear_password
from gatepost.core.ports.directory import Account, Entry, EntryKind
from gatepost.core.sasl_scram import parse_verifier

Attributes = Mapping[str, Sequence[str]]  # names in lower case
Dn = tuple[frozenset[tuple[str, str]], ...]


class MappedEntry(msgspec.Struct, frozen=True):
    """An entry with what only the backends need: all its login names, and its members' DNs."""

    entry: Entry
    names: tuple[str, ...]
    members: tuple[str, ...]

    def has_name(self, login: str) -> bool:
        """Whether a login is one of its names, without regard to case.

        Servers compare with more tolerance (spaces, width), so that their answer is compared here again.
        """
        wanted = login.lower()
        return any(name.lower() == wanted for name in self.names)


class EntryMap:
    """Reads entries by an AttributeMap; their names have no case (RFC 4512 2.5)."""

    def __init__(self, attributes: AttributeMap) -> None:
        self._map = attributes
        self._prefix = attributes.address_prefix.lower()
        self._group_classes = frozenset(name.lower() for name in attributes.group_classes)

    def wanted(self, *, members: bool) -> list[str]:
        """The attributes to ask a server for; `members` only where they are used, since groups can be large."""
        attributes = self._map
        names = (
            attributes.name,
            *attributes.addresses,
            attributes.mail_host,
            attributes.routing_address,
            attributes.store,
            attributes.quota_bytes,
            attributes.quota_used_bytes,
            attributes.members if members else "",
            attributes.enabled,
            attributes.login_enabled,
            attributes.secure_login,
            attributes.group_name,
            "objectClass",
        )
        return list(dict.fromkeys(name for name in names if name))

    @property
    def secrets(self) -> list[str]:
        """The attributes that only account() asks a server for."""
        return [name for name in (self._map.scram_verifier, self._map.clear_password) if name]

    def account(self, entry: Entry, attributes: Attributes, *more: str) -> Account:
        """An account with its secrets, also from the attributes `more`, which may have other kinds of values."""
        return Account(
            entry,
            tuple(
                value
                for value in self._secrets(attributes, self._map.scram_verifier, *more)
                if parse_verifier(value) is not None
            ),
            tuple(
                clear
                for value in self._secrets(attributes, self._map.clear_password, *more)
                if (clear := clear_password(value))
            ),
        )

    def _secrets(self, attributes: Attributes, *names: str) -> list[str]:
        """Values as they are: spaces belong to a password."""
        return [value for name in dict.fromkeys(filter(None, names)) for value in attributes.get(name.lower(), ())]

    def read(self, dn: str, attributes: Attributes) -> MappedEntry:
        """Map one entry. What cannot be read (an address that is none, a quota that is no size) is left out.

        An entry without a name goes by its first address.
        """
        is_group = any(name.lower() in self._group_classes for name in attributes.get("objectclass", ()))
        names = self._values(attributes, self._map.group_name if is_group else self._map.name)
        addresses = self._addresses(attributes)
        first = next(iter(addresses.values()), "")
        entry = Entry(
            name=names[0] if names else first,
            kind=EntryKind.GROUP if is_group else EntryKind.ACCOUNT,
            address=first,
            addresses=tuple(addresses),
            enabled=not self._has(attributes, self._map.enabled, self._map.disabled_values),
            login_enabled=not self._has(attributes, self._map.login_enabled, self._map.login_disabled_values),
            mail_host=self._first(attributes, self._map.mail_host).lower(),
            routing_address=self._first(attributes, self._map.routing_address),
            store=self._first(attributes, self._map.store),
            # A quota of 0 is no limit, as mailbox servers have it.
            quota_bytes=_size(self._first(attributes, self._map.quota_bytes)) or None,
            quota_used_bytes=_size(self._first(attributes, self._map.quota_used_bytes)),
            reference=dn,
            secure_login=self._has(attributes, self._map.secure_login, self._map.secure_login_values),
        )
        return MappedEntry(entry, tuple(names), tuple(self._values(attributes, self._map.members)))

    def _values(self, attributes: Attributes, name: str) -> list[str]:
        if not name:
            return []
        return [text for value in attributes.get(name.lower(), ()) if (text := value.strip())]

    def _first(self, attributes: Attributes, name: str) -> str:
        return next(iter(self._values(attributes, name)), "")

    def _has(self, attributes: Attributes, name: str, values: Iterable[str]) -> bool:
        unwanted = {value.lower() for value in values}
        return any(value.lower() in unwanted for value in self._values(attributes, name))

    def _addresses(self, attributes: Attributes) -> dict[str, str]:
        """Map each address key to the address as written, the entry's first one first.

        Where addresses carry a prefix, the one with the prefix in capitals is the first (as Active Directory
        marks the primary one of proxyAddresses).
        """
        texts: list[tuple[bool, str]] = []
        for name in self._map.addresses:
            for value in self._values(attributes, name):
                prefixed = bool(self._prefix) and value.lower().startswith(self._prefix)
                primary = (
                    prefixed and value.startswith(self._prefix.upper()) and self._prefix.upper() != self._prefix
                )
                texts.append((not primary, value[len(self._prefix) :] if prefixed else value))
        found: dict[str, str] = {}
        for _, text in sorted(texts, key=lambda item: item[0]):
            try:
                address = parse_address(text)
            except AddressError:
                continue
            found.setdefault(address.key, str(address))
        return found


def prefer(found: Iterable[MappedEntry]) -> MappedEntry | None:
    """Return the entry that counts when several claim one address: an enabled one, then the first by DN.

    So an address that went from a leaver to somebody else works while the leaver's entry still has it.
    """
    return min(
        found,
        key=lambda item: (not item.entry.enabled, sorted(map(sorted, parse_dn(item.entry.reference)))),
        default=None,
    )


def _size(text: str) -> int | None:
    """Return the bytes of a quota's text ("104857600" or "100Mi"), None where it is none."""
    return size_bytes(text) if re.fullmatch(SIZE_PATTERN, text, re.ASCII) else None


_ESCAPE: Final = re.compile(r"\\(?:([0-9A-Fa-f]{2})|(.))", re.DOTALL)
# RFC 4514 3: attributeType = attributeValue, where a comma, plus or semicolon inside is escaped (2.4).
_PAIR: Final = re.compile(
    r"\s*([A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)*)\s*=((?:[^\\,+;\"]|\\.|\"(?:[^\\\"]|\\.)*\")*)([,+;]|$)",
    re.DOTALL,
)


def parse_dn(text: str) -> Dn:
    """Return a DN as RDNs, innermost first, each a set of (type, value) that can be compared.

    Types and values are compared without regard to case and to the amount of white space, as caseIgnoreMatch
    does (RFC 4517 4.2.11), which is what the naming attributes in use have. A text that is no DN gives one
    RDN that equals only the same text.
    """
    rdns: list[frozenset[tuple[str, str]]] = []
    pairs: set[tuple[str, str]] = set()
    position, separator = 0, ","
    while position < len(text):
        found = _PAIR.match(text, position)
        if found is None:
            return (frozenset({("", text)}),)
        pairs.add((found.group(1).lower(), _comparable(unescape_dn_value(found.group(2)))))
        position, separator = found.end(), found.group(3)
        if separator != "+":
            rdns.append(frozenset(pairs))
            pairs = set()
    if pairs or (text and separator):
        return (frozenset({("", text)}),)
    return tuple(rdns)


def split_dn(text: str) -> tuple[list[tuple[str, str]], str] | None:
    """Split a DN into the innermost RDN's (type, plain value) pairs and the parent's DN; or None."""
    pairs: list[tuple[str, str]] = []
    position = 0
    while (found := _PAIR.match(text, position)) is not None:
        pairs.append((found.group(1), unescape_dn_value(found.group(2))))
        position = found.end()
        if found.group(3) != "+":
            return pairs, text[position:].strip()
    return None


def unescape_dn_value(text: str) -> str:
    """Return an attribute value of a DN without its escapes (RFC 4514 2.4, hex pairs are UTF-8 octets)."""
    text = _trimmed(text)
    if len(text) >= 2 and text.startswith('"') and text.endswith('"'):
        text = text[1:-1]  # RFC 2253 4 still had quotation marks
    if "\\" not in text:
        return text
    out = bytearray()
    position = 0
    for found in _ESCAPE.finditer(text):
        out += text[position : found.start()].encode("utf-8", "surrogateescape")
        pair, single = found.groups()
        out += bytes.fromhex(pair) if pair else single.encode("utf-8", "surrogateescape")
        position = found.end()
    out += text[position:].encode("utf-8", "surrogateescape")
    return out.decode("utf-8", "surrogateescape")


def _trimmed(text: str) -> str:
    """Strip the white space around a value, but not a final space that is escaped."""
    stripped = text.strip()
    return stripped + " " if stripped.endswith("\\") and not stripped.endswith("\\\\") else stripped


def _comparable(text: str) -> str:
    return " ".join(text.casefold().split())
