"""Groups in groups, for every directory: level by level, without loops, within limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from gatepost.backends.directory_entry import Dn, MappedEntry, parse_dn
from gatepost.core.ports.directory import DirectoryUnavailable, Entry, EntryKind

# Members of one group, nested ones counted: a larger list belongs to a list manager, not to a mail group.
MAX_GROUP_MEMBERS: Final = 10_000
# Groups in groups; deeper is a mistake (loops end by themselves).
MAX_GROUP_DEPTH: Final = 20

Fetch = Callable[[Sequence[str]], Awaitable[Sequence[MappedEntry]]]


async def expand_group(group: Entry, fetch: Fetch) -> tuple[Entry, ...]:
    """Return the accounts of a group that can get mail, each once, by name.

    `fetch` gives the entries of DNs as far as they exist. Raises DirectoryUnavailable for a group beyond the
    limits: cutting it off would lose mail without a word, so that it waits until somebody has looked.
    """
    seen = {parse_dn(group.reference)}
    level: list[str] = [group.reference]
    accounts: list[Entry] = []
    for _ in range(MAX_GROUP_DEPTH):
        found = await fetch(level)
        accounts += [item.entry for item in found if item.entry.kind is EntryKind.ACCOUNT]
        level = []
        for item in found:
            if item.entry.kind is EntryKind.GROUP and item.entry.enabled:
                level += [member for member in item.members if _is_new(member, seen)]
        if len(seen) > MAX_GROUP_MEMBERS:
            raise DirectoryUnavailable(f"the group {group.name} has over {MAX_GROUP_MEMBERS} members")
        if not level:
            return _in_order(accounts)
    raise DirectoryUnavailable(f"the group {group.name} has groups in it over {MAX_GROUP_DEPTH} deep")


def _is_new(member: str, seen: set[Dn]) -> bool:
    dn = parse_dn(member)
    if dn in seen:
        return False
    seen.add(dn)
    return True


def _in_order(accounts: Iterable[Entry]) -> tuple[Entry, ...]:
    """By name, since servers promise no order of values (RFC 4512 2.3)."""
    usable = {entry.reference: entry for entry in accounts if entry.enabled and entry.address}
    return tuple(sorted(usable.values(), key=lambda entry: (entry.name, entry.reference)))
