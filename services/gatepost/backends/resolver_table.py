"""A resolver that knows what it was told: for tests and for trying out a policy without a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gatepost.backends.resolver_answers import both_families, canonical_name, mx_hosts, reverse_name
from gatepost.core.ports.resolver import Answer, MxHost, NoSuchDomain, ResolverFailure

# As recursive resolvers stop at some length of a chain.
MAX_CNAMES: Final = 8
DEFAULT_TTL: Final = 300

_NAMES: Final = frozenset({"CNAME", "PTR", "NS"})


class TableResolver:
    """core.ports.resolver.Resolver over records in memory. `asked` lists the questions as (name, kind)."""

    def __init__(self) -> None:
        self._records: dict[str, dict[str, list[str]]] = {}
        self._ttl: dict[tuple[str, str], int] = {}
        self._secure: set[str] = set()
        self._failing: set[tuple[str, str]] = set()
        self.asked: list[tuple[str, str]] = []

    def add(
        self, name: str, kind: str, *records: str, ttl: int = DEFAULT_TTL, secure: bool = False
    ) -> TableResolver:
        """Add records in text form; without any the name exists and has none. Returns itself, for chains."""
        name = canonical_name(name)
        values = [canonical_name(record) if kind in _NAMES else record for record in records]
        if values:
            self._records.setdefault(name, {}).setdefault(kind, []).extend(values)
            self._ttl[name, kind] = ttl
        else:
            self._records.setdefault(name, {})
        if secure:
            self._secure.add(name)
        return self

    def add_ptr(self, address: str, *hosts: str) -> TableResolver:
        return self.add(reverse_name(address), "PTR", *hosts)

    def remove(self, name: str) -> None:
        """Let a name exist no more."""
        self._records.pop(canonical_name(name), None)

    def fail(self, name: str, kind: str = "") -> TableResolver:
        """Let questions for a name (of a type, or all) fail until mend()."""
        self._failing.add((canonical_name(name), kind))
        return self

    def mend(self) -> None:
        self._failing.clear()

    async def start(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def mx(self, domain: str) -> Sequence[MxHost]:
        return mx_hosts(await self.query(domain, "MX"))

    async def addresses(self, host: str) -> Sequence[str]:
        return await both_families(self.query, host)

    async def txt(self, name: str) -> Answer:
        return await self.query(name, "TXT")

    async def ptr(self, address: str) -> Answer:
        return await self.query(reverse_name(address), "PTR")

    async def query(self, name: str, kind: str) -> Answer:
        self.asked.append((name, kind))
        current = canonical_name(name)
        secure, ttl = True, DEFAULT_TTL
        for _ in range(MAX_CNAMES):
            if (current, kind) in self._failing or (current, "") in self._failing:
                raise ResolverFailure(f"{current}: no answer")
            here = self._at(current)
            secure = secure and current in self._secure
            found = here.get(kind, [])
            alias = here.get("CNAME", []) if kind != "CNAME" else []
            ttl = min(ttl, self._ttl.get((current, kind if found else "CNAME"), DEFAULT_TTL))
            if found or not alias:
                return Answer(tuple(found), ttl, secure, current)
            current = alias[0]
        raise ResolverFailure(f"{name}: the chain of CNAMEs is too long")

    def _at(self, name: str) -> dict[str, list[str]]:
        if name in self._records:
            return self._records[name]
        # A name above one that exists exists too (RFC 8020 2).
        if any(other.endswith(f".{name}") for other in self._records):
            return {}
        raise NoSuchDomain(name)
