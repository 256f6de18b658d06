"""Which hosts to try for a destination, in order: RFC 5321 5.1, RFC 7505, static routes and smart hosts."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Final

from gatepost.core.envelope import Destination
from gatepost.core.hosts import NextHop, parse_host
from gatepost.core.ports.resolver import MxHost, NoSuchDomain, Resolver, ResolverFailure
from gatepost.core.ports.transport import HostPort, RemoteReply

MAX_TARGETS: Final = 20  # addresses tried in one attempt; RFC 5321 5.1 wants at least two
MAX_MX: Final = 50  # MX hosts looked at of one domain


class NoTarget(Exception):
    """There is no host to try; `reply` says why, with a 4xx or a 5xx code."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.reply = RemoteReply(code, enhanced, text)


async def find_targets(
    resolver: Resolver, destination: Destination, hostname: str, port: int, others: Collection[str] = ()
) -> tuple[HostPort, ...]:
    """Return the addresses to try, best first. Raises NoTarget.

    `others`: names and addresses besides `hostname` by which MX records mean this gateway.
    """
    own = frozenset((hostname, *others))
    if not destination.hosts:
        targets = await _by_mx(resolver, destination.domain, own, port)
        return tuple(targets[:MAX_TARGETS])
    targets = []
    trouble: NoTarget | None = None
    for text in destination.hosts:
        hop = parse_host(text)
        try:
            targets += await _of_hop(resolver, hop, own, hop.port or port)
        except NoTarget as error:
            # The next host of the list may still be found; a temporary fault outweighs a permanent one.
            if trouble is None or trouble.reply.code >= 500:
                trouble = error
    if not targets:
        raise trouble or NoTarget(451, "4.4.4", "no host of the route was found")
    return tuple(targets[:MAX_TARGETS])


async def _of_hop(resolver: Resolver, hop: NextHop, own: frozenset[str], port: int) -> list[HostPort]:
    if hop.is_ip:
        return [HostPort(hop.host, hop.host, port)]
    if hop.use_mx:
        return await _by_mx(resolver, hop.host, own, port)
    try:
        addresses = await resolver.addresses(hop.host)
    except NoSuchDomain:
        # A route that an administrator wrote: its host may come back, the mail must not be lost to a typo.
        raise NoTarget(451, "4.4.4", f"host {hop.host} does not exist in DNS") from None
    except ResolverFailure:
        raise NoTarget(451, "4.4.3", f"DNS did not answer for {hop.host}") from None
    if not addresses:
        raise NoTarget(451, "4.4.4", f"host {hop.host} has no address in DNS")
    return [HostPort(hop.host, address, port) for address in addresses]


async def _by_mx(resolver: Resolver, domain: str, own: frozenset[str], port: int) -> list[HostPort]:
    try:
        records = await resolver.mx(domain)
    except NoSuchDomain:
        raise NoTarget(550, "5.1.2", f"the domain {domain} does not exist") from None
    except ResolverFailure:
        raise NoTarget(451, "4.4.3", f"DNS did not answer for the MX of {domain}") from None
    if not records:
        return await _implicit_mx(resolver, domain, port)
    hosts = [record for record in records if record.host]
    if not hosts:
        raise NoTarget(556, "5.1.10", f"{domain} takes no mail (null MX)")  # RFC 7505 4.2
    ordered = _in_order(_before_ourselves(hosts, own, domain))
    return await _addresses(resolver, ordered[:MAX_MX], domain, own, port)


async def _implicit_mx(resolver: Resolver, domain: str, port: int) -> list[HostPort]:
    """RFC 5321 5.1: without MX records the domain itself is its mail host, preference 0."""
    try:
        addresses = await resolver.addresses(domain)
    except NoSuchDomain:
        addresses = ()
    except ResolverFailure:
        raise NoTarget(451, "4.4.3", f"DNS did not answer for the address of {domain}") from None
    if not addresses:
        raise NoTarget(550, "5.1.2", f"{domain} has neither a mail host (MX) nor an address in DNS")
    return [HostPort(domain, address, port) for address in addresses]


def _before_ourselves(hosts: Sequence[MxHost], own: frozenset[str], domain: str) -> list[MxHost]:
    """RFC 5321 5.1: when we are among the MX hosts, only those with a lower preference may be tried."""
    ours = [host for host in hosts if host.host in own]
    if not ours:
        return list(hosts)
    least = min(host.preference for host in ours)
    better = [host for host in hosts if host.preference < least]
    if not better:
        raise _loop(domain, ours[0].host)
    return better


def _loop(domain: str, ours: str) -> NoTarget:
    return NoTarget(
        554, "5.4.6", f"mail for {domain} loops back to this gateway: its MX is {ours}, but it is not served"
    )


def _in_order(hosts: Sequence[MxHost]) -> list[MxHost]:
    """Lowest preference first; equal ones at random to spread the load (RFC 5321 5.1)."""
    return sorted(hosts, key=lambda host: (host.preference, random.random()))


async def _addresses(
    resolver: Resolver, hosts: Sequence[MxHost], domain: str, own: frozenset[str], port: int
) -> list[HostPort]:
    """The addresses of hosts that are in their order. One that has an address of ours is this gateway by another
    name, and only what is better than it counts (RFC 5321 5.1)."""
    targets: list[HostPort] = []
    better = 0  # how many of the targets have a lower preference than the host that is looked at
    preference = -1
    failed = False
    for host in hosts:
        if host.preference != preference:
            preference, better = host.preference, len(targets)
            if better >= MAX_TARGETS:
                break
        try:
            found = await resolver.addresses(host.host)
        except NoSuchDomain:
            continue
        except ResolverFailure:
            failed = True
            continue
        if not own.isdisjoint(found):
            targets = targets[:better]
            if not targets:
                raise _loop(domain, host.host)
            break
        targets += [HostPort(host.host, address, port) for address in found]
    if targets:
        return targets
    if failed:
        raise NoTarget(451, "4.4.3", f"DNS did not answer for the mail hosts of {domain}")
    raise NoTarget(451, "4.4.4", f"none of the mail hosts (MX) of {domain} has an address in DNS")
