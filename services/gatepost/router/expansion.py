"""From one accepted recipient to its final copies: aliases, role addresses, groups, LDAP routing, loops."""

from __future__ import annotations

from collections.abc import Mapping

from gatepost.core.address import Address, parse_address
from gatepost.core.outbound import by_smart_host, outbound_domain
from gatepost.core.ports.directory import Directory
from gatepost.core.recipients import Found, Kind, find_recipient
from gatepost.core.routing import (
    MAX_EXPANSION,
    MAX_EXPANSION_DEPTH,
    Dropped,
    GoesNowhere,
    GoesOnAs,
    GoesTo,
    GoesToGroup,
    route,
    route_entry,
)
from gatepost.core.tables import Tables
from gatepost.router.copies import Copy, Expansion, Problem


class Expander:
    """Expands the recipients of one message. One instance per message: a final address gets one copy."""

    def __init__(
        self, tables: Tables, directories: Mapping[str, Directory], stores: Mapping[str, str], reverse_path: str
    ) -> None:
        self._tables, self._directories, self._stores = tables, directories, stores
        self._sender_domain = outbound_domain(tables, reverse_path)
        self._copies: dict[str, Copy] = {}
        self._problems: list[Problem] = []
        self._dropped = 0

    async def add(self, original: str) -> None:
        """Expand one recipient. Raises DirectoryUnavailable; then nothing of the message may be used."""
        await self._expand(original, parse_address(original), 0, frozenset())

    def result(self) -> Expansion:
        return Expansion(tuple(self._copies.values()), tuple(self._problems), self._dropped)

    async def _expand(self, original: str, address: Address, depth: int, seen: frozenset[str]) -> None:
        if address.key in seen or depth > MAX_EXPANSION_DEPTH or len(self._copies) >= MAX_EXPANSION:
            self._problem(original, address, GoesNowhere("5.4.6", "the address leads in a circle or to too many"))
            return
        await self._settle(original, address, depth, seen, past_lists=False)

    async def _settle(
        self, original: str, address: Address, depth: int, seen: frozenset[str], *, past_lists: bool
    ) -> None:
        found = await find_recipient(self._tables, self._directories, address, past_lists=past_lists)
        match route(found, self._stores):
            case GoesTo() as goes:
                self._copy(original, address, goes)
            case GoesOnAs(addresses=addresses):
                await self._go_on(original, found, addresses, depth, seen | {address.key})
            case GoesToGroup(config=config, group=group):
                for member in await self._directories[config.directory].expand(group):
                    member_found = Found(Kind.ENTRY, parse_address(member.address), config, member)
                    await self._member(original, member_found, depth, seen | {address.key})
            case GoesNowhere() as nowhere:
                self._problem(original, address, nowhere)
            case Dropped():
                self._dropped += 1

    async def _go_on(
        self, original: str, found: Found, addresses: tuple[Address, ...], depth: int, seen: frozenset[str]
    ) -> None:
        """An alias that names itself means its own mailbox: what the directory has behind it."""
        for target in addresses:
            if target.key == found.address.key and found.kind is Kind.LIST:
                await self._settle(original, target, depth + 1, seen, past_lists=True)
            else:
                await self._expand(original, target, depth + 1, seen)

    async def _member(self, original: str, found: Found, depth: int, seen: frozenset[str]) -> None:
        match route_entry(found, self._stores):
            case GoesTo() as goes:
                self._copy(original, found.address, goes)
            case GoesOnAs(addresses=addresses):
                await self._go_on(original, found, addresses, depth, seen)
            case GoesNowhere() as nowhere:
                self._problem(original, found.address, nowhere)
            case _:
                self._dropped += 1

    def _copy(self, original: str, address: Address, goes: GoesTo) -> None:
        if goes.destination.domain not in self._tables.secondary:  # a secondary MX sends to the primary itself
            goes = by_smart_host(goes, self._sender_domain)
        key = goes.destination.mailbox or goes.address.key
        if key not in self._copies:
            forwarded = goes.address.key != parse_address(original).key
            self._copies[key] = Copy(original, goes, forwarded)

    def _problem(self, original: str, address: Address, nowhere: GoesNowhere) -> None:
        self._problems.append(Problem(original, str(address), nowhere))
