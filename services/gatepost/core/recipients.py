"""Is this recipient ours, and what is it: asked by the edge at RCPT and by the router for each copy.

The order is fixed: what a MailDomain says explicitly (aliases, role addresses, static addresses) comes before
the directory; an exact address beats one whose detail was cut off (RFC 5233).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import msgspec

from gatepost.core.address import Address
from gatepost.core.checks.verdict import ROLE_NAMES
from gatepost.core.configuration import DomainConfig
from gatepost.core.ports.directory import Directory, DirectoryUnavailable, Entry
from gatepost.core.subaddress import split_subaddress
from gatepost.core.tables import Tables


class Kind(Enum):
    NOT_SERVED = "NotServed"  # the domain is not ours
    UNKNOWN = "Unknown"
    DISABLED = "Disabled"
    ENTRY = "Entry"  # an account or group of the directory
    LIST = "List"  # alias or role address: goes on to `targets`
    LISTED = "Listed"  # a static address, or any address of a domain that takes all or asks the next host


class Found(msgspec.Struct, frozen=True):
    """What a recipient is. `address` is the one that matched (alias domain replaced, detail cut off)."""

    kind: Kind
    address: Address
    config: DomainConfig | None = None
    entry: Entry | None = None
    targets: tuple[str, ...] = ()
    role: bool = False


async def find_recipient(
    tables: Tables, directories: Mapping[str, Directory], address: Address, *, past_lists: bool = False
) -> Found:
    """Find what an address is; with `past_lists` what is behind an alias that names itself.

    Raises DirectoryUnavailable.
    """
    home = tables.home(address)
    if home is None:
        return Found(Kind.NOT_SERVED, address)
    config, own = home
    for candidate in candidates(config, own):
        found = _configured(tables, config, candidate, past_lists)
        if found is None and config.source_kind == "Directory":
            found = await _in_directory(directories, config, candidate)
        if found is not None:
            return found
    if config.source_kind == "Any":  # with a call_ahead plan the edge, and it alone, asks the next host as well
        return Found(Kind.LISTED, own, config)
    return _kept_by_default(tables, own, config) or Found(Kind.UNKNOWN, own, config)


def _kept_by_default(tables: Tables, address: Address, config: DomainConfig) -> Found | None:
    """A role address that its domain does not know is the default domain's, where that names one.

    RFC 5321 4.5.1: every domain that is served must take mail for postmaster; RFC 2142 4 and 5 for the others.
    """
    local, default = address.local.lower(), tables.default
    if default is None or default is config or local not in ROLE_NAMES:
        return None
    target = default.role_addresses.get(local) or default.role_addresses.get("postmaster")
    return None if target is None else Found(Kind.LIST, address, config, targets=(target,), role=True)


def candidates(config: DomainConfig, address: Address) -> tuple[Address, ...]:
    """The address itself, then the one without its detail."""
    split = split_subaddress(address.local, config.separators)
    return (address,) if split is None else (address, Address(split[0], address.domain))


def _configured(tables: Tables, config: DomainConfig, address: Address, past_lists: bool) -> Found | None:
    local = address.local.lower()
    if not past_lists and local in config.aliases:
        return Found(Kind.LIST, address, config, targets=config.aliases[local])
    if not past_lists and local in config.role_addresses:
        return Found(Kind.LIST, address, config, targets=(config.role_addresses[local],), role=True)
    if address.key in tables.static(config):
        return Found(Kind.LISTED, address, config)
    return None


async def _in_directory(
    directories: Mapping[str, Directory], config: DomainConfig, address: Address
) -> Found | None:
    directory = directories.get(config.directory)
    if directory is None:
        raise DirectoryUnavailable(f"this process has no directory {config.directory!r}")
    entry = await directory.lookup(address)
    if entry is None:
        return None
    return Found(Kind.ENTRY if entry.enabled else Kind.DISABLED, address, config, entry)
