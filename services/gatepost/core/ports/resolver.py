"""DNS as the gateway asks it. Implemented by backends/resolver_dns (dnspython) and a table for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class ResolverFailure(Exception):
    """No usable answer: a time-out, SERVFAIL, REFUSED or nonsense. Temporary; never 'does not exist'."""


class NoSuchDomain(Exception):
    """The authoritative answer is NXDOMAIN (RFC 2308 2.1)."""


class Answer(msgspec.Struct, frozen=True):
    """Records of one type in text form; empty when the name exists without that type (NODATA).

    `ttl` in seconds; `secure` when a validating resolver set the AD bit (RFC 4035 3.2.3). `canonical` is the
    name at the end of the CNAMEs.
    """

    records: tuple[str, ...]
    ttl: int
    secure: bool = False
    canonical: str = ""


class MxHost(msgspec.Struct, frozen=True, order=True):
    preference: int
    host: str  # "" is the null MX (RFC 7505 3)


class Resolver(Protocol):
    """Names are canonical domains. All calls raise NoSuchDomain and ResolverFailure."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def mx(self, domain: str) -> Sequence[MxHost]:
        """The MX records, empty when there are none (then RFC 5321 5.1 says: the domain's own address)."""

    async def addresses(self, host: str) -> Sequence[str]:
        """The IPv6 and IPv4 addresses of a host, without those of a family that has none."""

    async def txt(self, name: str) -> Answer: ...

    async def ptr(self, address: str) -> Answer: ...

    async def query(self, name: str, kind: str) -> Answer:
        """Any other type, by its mnemonic."""
