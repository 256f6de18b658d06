"""Looks up what checks want to know of a client, its greeting and its sender's domain; never raises, never hangs.

Every question of a stage is asked at the same time. The names of a client and its greeting share LOOKUP_LIMIT, the
lists their own deadline (dnsbl.deadline): what has not answered by then has failed.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Final

from gatepost.core.checks.dnsbl import Subject
from gatepost.core.checks.helo import helo_domain
from gatepost.core.client_checks import ClientChecks
from gatepost.core.client_facts import ClientFacts, HeloFacts, Listing, Outcome, SenderFacts
from gatepost.core.ports.resolver import Resolver
from gatepost.edge.lists import Lists, asked

# s; shorter than the Settings' dns.timeout may be, since a client waits for it at RCPT.
LOOKUP_LIMIT: Final = 5.0
# An address may have any number of names, a domain any number of MX hosts: more than these are not looked at.
MOST_NAMES: Final = 8
MOST_HOSTS: Final = 10


async def look_up_client(checks: ClientChecks, resolver: Resolver, lists: Lists, address: str) -> ClientFacts:
    """The client's names, where a check wants them, and what the lists say of its address."""
    names, listings = await asyncio.gather(
        _names(resolver, address) if checks.needs_names else _no_names(address),
        _listings(checks, lists, Subject.CLIENT_ADDRESS, address),
    )
    return ClientFacts(address, names.reverse, names.forward, names.names, names.confirmed, listings)


async def look_up_helo(checks: ClientChecks, resolver: Resolver, lists: Lists, name: str) -> HeloFacts:
    domain = helo_domain(name)
    if domain is None:
        return HeloFacts(name)
    found, listings = await asyncio.gather(
        _greeting(resolver, name, domain) if checks.helo.needs_dns else _no_greeting(name),
        _listings(checks, lists, Subject.HELO_NAME, domain),
    )
    return HeloFacts(name, found.resolves, found.hosts, found.complete, listings)


async def look_up_sender(checks: ClientChecks, resolver: Resolver, lists: Lists, domain: str) -> SenderFacts:
    (resolves, null_mx), listings = await asyncio.gather(
        _mail_domain(resolver, domain) if checks.sender.action is not None else _notasked(),
        _listings(checks, lists, Subject.SENDER_DOMAIN, domain),
    )
    return SenderFacts(domain, resolves, null_mx, listings)


# -- names of an address


async def _no_names(address: str) -> ClientFacts:
    return ClientFacts(address)


async def _names(resolver: Resolver, address: str) -> ClientFacts:
    """PTR, and for each of its names the addresses (RFC 8601 3, iprev)."""
    deadline = asyncio.get_running_loop().time() + LOOKUP_LIMIT
    reverse, answer = await asked(resolver.ptr(address), deadline)
    names = () if answer is None else tuple(answer.records[:MOST_NAMES])
    if reverse is not Outcome.FOUND or not names:
        return ClientFacts(address, Outcome.ABSENT if reverse is Outcome.FOUND else reverse)
    forward = await asyncio.gather(*(asked(resolver.addresses(name), deadline) for name in names))
    wanted = ipaddress.ip_address(address)
    confirmed = tuple(
        name
        for name, (_, addresses) in zip(names, forward, strict=True)
        if addresses and wanted in map(ipaddress.ip_address, addresses)
    )
    if confirmed:
        outcome = Outcome.FOUND
    else:
        outcome = Outcome.FAILED if any(one is Outcome.FAILED for one, _ in forward) else Outcome.ABSENT
    return ClientFacts(address, reverse, outcome, names, confirmed)


# -- a greeting


async def _no_greeting(name: str) -> HeloFacts:
    return HeloFacts(name)


async def _greeting(resolver: Resolver, name: str, domain: str) -> HeloFacts:
    """Its own addresses and those of its MX hosts: a mail domain is as good a greeting as a host's name."""
    deadline = asyncio.get_running_loop().time() + LOOKUP_LIMIT
    (own, addresses), (mx, hosts) = await asyncio.gather(
        asked(resolver.addresses(domain), deadline), asked(resolver.mx(domain), deadline)
    )
    names = [host.host for host in hosts or () if host.host][:MOST_HOSTS]
    behind = await asyncio.gather(*(asked(resolver.addresses(host), deadline) for host in names))
    found = dict.fromkeys([*(addresses or ()), *(one for _, more in behind for one in more or ())])
    outcomes = (own, mx, *(outcome for outcome, _ in behind))
    complete = Outcome.FAILED not in outcomes
    if addresses or names:
        return HeloFacts(name, Outcome.FOUND, tuple(found), complete)
    return HeloFacts(name, Outcome.ABSENT if complete else Outcome.FAILED, (), complete)


# -- a sender's domain


async def _notasked() -> tuple[Outcome, bool]:
    return Outcome.NOT_ASKED, False


async def _mail_domain(resolver: Resolver, domain: str) -> tuple[Outcome, bool]:
    """Whether mail can be sent there (RFC 5321 5.1), and whether it says that it takes none (RFC 7505 3)."""
    deadline = asyncio.get_running_loop().time() + LOOKUP_LIMIT
    (mx, hosts), (own, addresses) = await asyncio.gather(
        asked(resolver.mx(domain), deadline), asked(resolver.addresses(domain), deadline)
    )
    if hosts:
        return Outcome.FOUND, all(not host.host for host in hosts)
    if addresses:
        return (Outcome.FOUND if mx is not Outcome.FAILED else Outcome.FAILED), False
    return (Outcome.FAILED if Outcome.FAILED in (mx, own) else Outcome.ABSENT), False


# -- lists


async def _listings(checks: ClientChecks, lists: Lists, subject: Subject, value: str) -> tuple[Listing, ...]:
    table = checks.dnsbl
    places = table.by_subject[subject]
    if not places:
        return ()
    deadline = asyncio.get_running_loop().time() + table.policy.deadline
    return tuple(
        await asyncio.gather(
            *(lists.ask(place, table.policy.lists[place].zone, value, deadline) for place in places)
        )
    )
