"""What both resolvers make of answers: MX hosts in order, and addresses of two families."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable

from gatepost.core.ports.resolver import Answer, MxHost, NoSuchDomain, ResolverFailure

Query = Callable[[str, str], Awaitable[Answer]]


def mx_hosts(answer: Answer) -> tuple[MxHost, ...]:
    """Read MX records ("10 mx.example.test"), lowest preference first, each host once.

    The null MX (RFC 7505 3) is MxHost(0, ""); it counts only when it is alone. Raises ResolverFailure for a
    record that is none.
    """
    best: dict[str, int] = {}
    for record in answer.records:
        preference, _, host = record.partition(" ")
        if not preference.isdecimal():
            raise ResolverFailure(f"{record!r} is no MX record")
        name = canonical_name(host)
        best[name] = min(int(preference), best.get(name, 65535))
    if set(best) == {""}:
        return (MxHost(0, ""),)
    return tuple(sorted(MxHost(preference, name) for name, preference in best.items() if name))


async def both_families(query: Query, host: str) -> tuple[str, ...]:
    """Ask AAAA and A at the same time. A family that fails is passed over when the other one has addresses.

    Raises NoSuchDomain, and ResolverFailure when nothing is known for sure.
    """
    answers = await asyncio.gather(query(host, "AAAA"), query(host, "A"), return_exceptions=True)
    found = [record for answer in answers if isinstance(answer, Answer) for record in answer.records]
    if found:
        return tuple(dict.fromkeys(found))
    for kind in (NoSuchDomain, BaseException):
        for answer in answers:
            if isinstance(answer, kind):
                raise answer
    return ()


def reverse_name(address: str) -> str:
    """Return the name of an address's PTR records (RFC 1035 3.5, RFC 3596 2.5). Raises ValueError.

    An IPv4 address in IPv6 form (::ffff:192.0.2.1) is the IPv4 address.
    """
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).reverse_pointer


def canonical_name(text: str) -> str:
    """Return a name as answers have it in the canonical form: lower case, no final dot, the root is ""."""
    return text.strip().lower().removesuffix(".")
