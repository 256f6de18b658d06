"""DNS by dnspython: recursive resolvers in order, one deadline for each question, a cache by TTL."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver
import msgspec
import structlog

from gatepost.backends.resolver_answers import both_families, canonical_name, mx_hosts, reverse_name
from gatepost.backends.single_flight import SingleFlight
from gatepost.core.endpoints import port_number
from gatepost.core.manifest.quantities import seconds
from gatepost.core.manifest.settings import DnsSettings
from gatepost.core.ports.resolver import Answer, MxHost, NoSuchDomain, ResolverFailure

DNS_PORT: Final = 53
# What passes every path without fragments (DNS flag day 2020).
EDNS_PAYLOAD: Final = 1232
# A record is asked for again at least once a day, and a "no" at least hourly (RFC 2308 5 advises 1 to 3 hours).
MAX_TTL: Final = 86_400
MAX_NEGATIVE_TTL: Final = 3600
# Each server may be asked this often within the deadline, so that one lost packet is no failure.
ROUNDS: Final = 2

_NAME_TYPES: Final = frozenset({dns.rdatatype.CNAME, dns.rdatatype.PTR, dns.rdatatype.NS})

_log = structlog.get_logger("gatepost.resolver")


class _Cached(msgspec.Struct, frozen=True, gc=False):
    """An answer until a moment of the monotonic clock; `answer` None: NXDOMAIN."""

    expires: float
    answer: Answer | None


class _Server(msgspec.Struct, frozen=True):
    address: str
    port: int


class _Failed(Exception):
    """A server gave no usable answer. `dead`: it did not answer at all."""

    def __init__(self, reason: str, *, dead: bool) -> None:
        super().__init__(reason)
        self.dead = dead


class DnsResolver:
    """core.ports.resolver.Resolver. Belongs to one event loop."""

    def __init__(self, settings: DnsSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ValueError for a server that is no IP address, with or without a port."""
        self._servers = [_server(text) for text in settings.servers]
        self._limit = seconds(settings.timeout)
        self._room = settings.cache_entries
        self._clock = clock
        self._cache: OrderedDict[tuple[str, str], _Cached] = OrderedDict()
        self._flights: SingleFlight[tuple[str, str], _Cached] = SingleFlight()

    async def start(self) -> None:
        """Read the system's resolvers where none are set. Raises ResolverFailure when there are none."""
        if self._servers:
            return
        try:
            system = await asyncio.to_thread(dns.resolver.Resolver)
        except dns.resolver.NoResolverConfiguration:
            raise ResolverFailure("dns.servers is empty and the system has no resolvers") from None
        self._servers = [_server(str(address)) for address in system.nameservers]

    async def close(self) -> None:
        await self._flights.close()
        self._cache.clear()

    async def mx(self, domain: str) -> Sequence[MxHost]:
        return mx_hosts(await self.query(domain, "MX"))

    async def addresses(self, host: str) -> Sequence[str]:
        return await both_families(self.query, host)

    async def txt(self, name: str) -> Answer:
        """Each record is the concatenation of its strings (RFC 7208 3.3)."""
        return await self.query(name, "TXT")

    async def ptr(self, address: str) -> Answer:
        return await self.query(reverse_name(address), "PTR")

    async def query(self, name: str, kind: str) -> Answer:
        """As the port says; the TTL is what remains of it. Raises ValueError for a type that is not known."""
        key = (canonical_name(name), kind)
        now = self._clock()
        cached = self._cache.get(key)
        if cached is None or cached.expires <= now:
            cached = await self._flights.ask(key, lambda: self._ask_and_keep(key))
        else:
            self._cache.move_to_end(key)
        if cached.answer is None:
            raise NoSuchDomain(name)
        answer = cached.answer
        return Answer(answer.records, max(0, int(cached.expires - now)), answer.secure, answer.canonical)

    async def _ask_and_keep(self, key: tuple[str, str]) -> _Cached:
        ttl, answer = await self._ask(*key)
        cached = _Cached(self._clock() + ttl, answer)
        if ttl > 0 and self._room:
            self._cache[key] = cached
            self._cache.move_to_end(key)
            if len(self._cache) > self._room:
                self._cache.popitem(last=False)
        return cached

    async def _ask(self, name: str, kind: str) -> tuple[int, Answer | None]:
        """Ask the servers: (seconds to keep it, the answer or None for NXDOMAIN). Raises ResolverFailure."""
        rdtype = _type(kind)
        try:
            question = dns.name.from_text(name, dns.name.root) if name.isascii() else None
        except dns.exception.DNSException:
            question = None
        if question is None:
            # Nothing of that name can be in the DNS (RFC 1035 2.3.4).
            return 0, None
        response = await self._exchange(question, rdtype)
        try:
            return read_response(response)
        except (dns.exception.DNSException, ValueError) as error:
            _log.info("dns_answer_unusable", name=name, kind=kind, reason=str(error))
            raise ResolverFailure(f"{name} {kind}: the answer cannot be used") from None

    async def _exchange(self, question: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> dns.message.Message:
        """Ask server after server until one knows, within the deadline. Raises ResolverFailure."""
        if not self._servers:
            raise ResolverFailure("the resolver is not started")
        deadline = asyncio.get_running_loop().time() + self._limit
        share = self._limit / (ROUNDS * len(self._servers))
        refused: set[_Server] = set()
        reasons: list[str] = []
        for _ in range(ROUNDS):
            for server in list(self._servers):
                remaining = deadline - asyncio.get_running_loop().time()
                if server in refused or remaining <= 0:
                    continue
                try:
                    return await _ask_server(server, question, rdtype, min(share, remaining))
                except _Failed as failed:
                    reasons.append(f"{server.address}: {failed}")
                    if failed.dead:
                        self._ask_last(server)
                    else:
                        refused.add(server)
        _log.info("dns_failed", name=str(question), kind=rdtype.name, reasons=reasons)
        raise ResolverFailure(f"{question} {rdtype.name}: no usable answer")

    def _ask_last(self, server: _Server) -> None:
        """A server that is dead costs its time only once."""
        if len(self._servers) > 1:
            self._servers.remove(server)
            self._servers.append(server)


async def _ask_server(
    server: _Server, question: dns.name.Name, rdtype: dns.rdatatype.RdataType, limit: float
) -> dns.message.Message:
    """Ask one server by UDP, and by TCP when the answer was cut (RFC 7766 5). Raises _Failed."""
    # Each question has an id and a source port of its own (RFC 5452 9). AD asks for AD (RFC 6840 5.7).
    request = dns.message.make_query(
        question, rdtype, use_edns=0, payload=EDNS_PAYLOAD, flags=dns.flags.RD | dns.flags.AD
    )
    try:
        async with asyncio.timeout(limit):
            try:
                # What does not fit the question is not an answer: go on waiting.
                response = await dns.asyncquery.udp(
                    request,
                    server.address,
                    port=server.port,
                    raise_on_truncation=True,
                    ignore_unexpected=True,
                    ignore_errors=True,
                )
            except dns.message.Truncated:
                response = await dns.asyncquery.tcp(request, server.address, port=server.port)
    except TimeoutError:
        raise _Failed("no answer in time", dead=True) from None
    except OSError as error:
        raise _Failed(error.strerror or "cannot be reached", dead=True) from None
    except RuntimeError:  # uvloop's, of a write to a connection that the server has closed
        raise _Failed("the connection was closed", dead=True) from None
    except (dns.exception.DNSException, EOFError) as error:
        raise _Failed(type(error).__name__, dead=False) from None
    if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise _Failed(dns.rcode.to_text(response.rcode()), dead=False)
    return response


def read_response(response: dns.message.Message) -> tuple[int, Answer | None]:
    """Read NOERROR or NXDOMAIN: (seconds to keep it, the answer or None for NXDOMAIN).

    Follows CNAMEs within the response, as a recursive resolver has put them there. Raises dnspython's
    exceptions and ValueError for what contradicts itself.
    """
    if not isinstance(response, dns.message.QueryMessage):
        raise ValueError("no answer to a query")
    chain = response.resolve_chaining()
    if response.rcode() == dns.rcode.NXDOMAIN:
        return _negative_ttl(response, chain.minimum_ttl), None
    canonical = canonical_name(str(chain.canonical_name))
    secure = bool(response.flags & dns.flags.AD)
    if chain.answer is None:
        ttl = _negative_ttl(response, chain.minimum_ttl)
        return ttl, Answer((), ttl, secure, canonical)
    ttl = min(chain.minimum_ttl, MAX_TTL)
    return ttl, Answer(tuple(map(_text, chain.answer)), ttl, secure, canonical)


def _negative_ttl(response: dns.message.QueryMessage, minimum_ttl: int) -> int:
    """How long a "no" may be kept: the SOA says it, and without one not at all (RFC 2308 5)."""
    has_soa = any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority)
    return min(minimum_ttl, MAX_NEGATIVE_TTL) if has_soa else 0


def _text(record: Any) -> str:
    if record.rdtype == dns.rdatatype.TXT:
        return b"".join(record.strings).decode("utf-8", "surrogateescape")
    if record.rdtype == dns.rdatatype.MX:
        return f"{record.preference} {canonical_name(str(record.exchange))}".strip()
    text = str(record.to_text())
    return canonical_name(text) if record.rdtype in _NAME_TYPES else text


def _type(kind: str) -> dns.rdatatype.RdataType:
    try:
        rdtype = dns.rdatatype.from_text(kind)
    except (dns.exception.DNSException, ValueError):
        raise ValueError(f"{kind!r} is no DNS record type") from None
    if dns.rdatatype.is_metatype(rdtype):
        raise ValueError(f"{kind!r} cannot be asked for")
    return rdtype


def _server(text: str) -> _Server:
    """Read IP, IP:PORT, or [IPV6]:PORT."""
    host, separator, port = text.rpartition(":")
    if text.startswith("[") or (separator and ":" not in host):
        address = host if not text.endswith("]") else text
        number = port if not text.endswith("]") else str(DNS_PORT)
    else:
        address, number = text, str(DNS_PORT)
    address = address.removeprefix("[").removesuffix("]")
    try:
        # A link-local address carries its interface after a "%".
        ipaddress.ip_address(address)
    except ValueError:
        raise ValueError(f"dns.servers: {text!r} is neither IP nor IP:PORT") from None
    valid = port_number(number)
    if valid is None:
        raise ValueError(f"dns.servers: {text!r} has no valid port")
    return _Server(address, valid)
