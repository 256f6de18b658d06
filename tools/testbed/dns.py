"""A scriptable DNS server on UDP and TCP of one loopback port, with the faults that real DNS has.

It answers from zone text that may change while it runs, follows CNAMEs and wildcards, tells NXDOMAIN from an empty
answer, truncates what doesn't fit, and misbehaves by name where told to. Everything is answered with an invented
authority: there is no delegation and no cache.
"""

import contextlib
import socket
import threading
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from dnslib import QTYPE, RCODE, RR, DNSError, DNSRecord

from testbed import ports
from testbed.network import HERE, Place
from testbed.running import Running

MAX_CNAMES = 8
# RFC 1035, 4.2.1: the size of an answer over UDP for a client that announces no other by EDNS.
CLASSIC_UDP_BYTES = 512
THREAD_END_SECONDS = 5.0
ANY_NAME = "*"


class Fault(StrEnum):
    """What can go wrong with a query, in place of its answer or with it."""

    SERVFAIL = "servfail"
    REFUSED = "refused"
    DROP = "drop"  # no answer over UDP or TCP
    TRUNCATE = "tc"  # over UDP an empty answer with TC; over TCP the real one
    TRUNCATE_DROP = "tcdrop"  # over UDP an empty answer with TC; over TCP none
    AUTHENTIC = "ad"  # the real answer with the AD bit, as from a validating resolver
    WRONG_ID = "wrongid"  # the real answer with another query's id
    GARBAGE = "garbage"  # the query's id and header, and behind it a name that points to itself


class Query(NamedTuple):
    """One query that came in: transport (`udp` or `tcp`), name in lower case without a last dot, type (`MX`)."""

    transport: str
    name: str
    type: str


class FakeDns(Running):
    """The server, a context manager; `port` at `place`, for UDP and TCP.

    `behave` maps a name ("slow.test"), a name with a type ("slow.test/MX") or ANY_NAME to a Fault (or its value) or
    to a number of seconds to wait before the real answer; the most specific key counts. It may be changed at any
    time, as may the zone by `set_zone` and `add`. `seen` lists the queries in the order they came.
    """

    def __init__(
        self, zone: str = "", behave: Mapping[str, str | float] | None = None, place: Place = HERE
    ) -> None:
        self.behave: dict[str, str | float] = dict(behave or {})
        self.seen: list[Query] = []
        self.port = ports.reserve()
        self._place = place
        self._records: dict[str, list[RR]] = {}
        self._closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.set_zone(zone)

    def set_zone(self, zone: str) -> None:
        """Replaces all records by those of a zone file's text (`name ttl IN type data`, $ORIGIN and $TTL)."""
        records: dict[str, list[RR]] = {}
        for record in RR.fromZone(zone) if zone.strip() else []:
            records.setdefault(_plain(record.rname), []).append(record)
        self._records = records

    def add(self, zone: str) -> None:
        """Adds the records of a zone file's text."""
        records = {name: list(old) for name, old in self._records.items()}
        for record in RR.fromZone(zone):
            records.setdefault(_plain(record.rname), []).append(record)
        self._records = records

    def remove(self, name: str) -> None:
        """Removes all records of one name."""
        self._records = {other: records for other, records in self._records.items() if other != name.lower()}

    def asked(self, name: str, qtype: str | None = None) -> int:
        """How many queries for `name` (and type) have come in."""
        return sum(query.name == name and qtype in (None, query.type) for query in list(self.seen))

    def start(self) -> None:
        """Starts answering; the port is bound when this returns."""
        self._udp, self._tcp = self._place.call(self._bound)
        for target in (self._serve_udp, self._accept_tcp):
            thread = threading.Thread(target=target, daemon=True, name=f"fakedns-{self.port}")
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stops answering and closes all connections."""
        if self._closing.is_set():
            return
        self._closing.set()
        # shutdown() wakes a blocked accept(); for a blocked recvfrom() it takes a datagram.
        with contextlib.suppress(OSError):
            self._tcp.shutdown(socket.SHUT_RDWR)
        self._udp.sendto(b"", self._udp.getsockname())
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(THREAD_END_SECONDS)
        self._udp.close()
        self._tcp.close()
        ports.release(self.port)

    def _bound(self) -> tuple[socket.socket, socket.socket]:
        address = (self._place.address, self.port)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(address)
        return udp, socket.create_server(address, backlog=128)

    def _serve_udp(self) -> None:
        while not self._closing.is_set():
            data, client = self._udp.recvfrom(65535)
            query = _parsed(data)
            if query is None:
                continue
            fault = self._note(query, "udp")
            if isinstance(fault, int | float):
                # Others don't wait for a slow one.
                timer = threading.Timer(fault, self._send_udp, (query, None, client))
                timer.daemon = True
                timer.start()
            else:
                self._send_udp(query, fault, client)

    def _send_udp(self, query: DNSRecord, fault: str | None, client: tuple[str, int]) -> None:
        answer = self._answer(query, fault, "udp")
        if answer is not None and not self._closing.is_set():
            with contextlib.suppress(OSError):
                self._udp.sendto(answer, client)

    def _accept_tcp(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            self._connections.add(connection)
            threading.Thread(target=self._serve_tcp, args=(connection,), daemon=True).start()

    def _serve_tcp(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
                while len(size := stream.read(2)) == 2:
                    query = _parsed(stream.read(int.from_bytes(size)))
                    if query is None:
                        return
                    fault = self._note(query, "tcp")
                    if isinstance(fault, int | float):
                        self._closing.wait(fault)
                        fault = None
                    answer = self._answer(query, fault, "tcp")
                    if answer is not None:
                        connection.sendall(len(answer).to_bytes(2) + answer)
        finally:
            self._connections.discard(connection)

    def _note(self, query: DNSRecord, transport: str) -> str | float | None:
        """Writes the query down and returns what to do about it."""
        name, type_name = _plain(query.q.qname), str(QTYPE[query.q.qtype])
        self.seen.append(Query(transport, name, type_name))
        for key in (f"{name}/{type_name}", name, ANY_NAME):
            if key in self.behave:
                return self.behave[key]
        return None

    def _answer(self, query: DNSRecord, fault: str | None, transport: str) -> bytes | None:
        """The bytes to send, or None for no answer at all."""
        reply = query.reply()
        match Fault(fault) if fault is not None else None:
            case Fault.DROP:
                return None
            case Fault.TRUNCATE_DROP if transport == "tcp":
                return None
            case Fault.TRUNCATE | Fault.TRUNCATE_DROP if transport == "udp":
                reply.header.tc = 1
                return bytes(reply.pack())
            case Fault.SERVFAIL:
                reply.header.rcode = RCODE.SERVFAIL
                return bytes(reply.pack())
            case Fault.REFUSED:
                reply.header.rcode = RCODE.REFUSED
                return bytes(reply.pack())
            case Fault.AUTHENTIC:
                reply.header.ad = 1
            case Fault.WRONG_ID:
                reply.header.id ^= 1
            case _:
                reply.header.ad = 0
        self._fill(reply, _plain(query.q.qname), query.q.qtype)
        if fault == Fault.GARBAGE:
            # One question, one answer; 0xC00C is where it stands (RFC 1035, 4.1.4).
            return int(query.header.id).to_bytes(2) + b"\x81\x80\0\1\0\1\0\0\0\0" + b"\xc0\x0c\0\1\0\1" * 2
        packed = bytes(reply.pack())
        if transport == "udp" and len(packed) > _udp_bytes(query):
            short = query.reply()
            short.header.tc = 1
            return bytes(short.pack())
        return packed

    def _fill(self, reply: DNSRecord, name: str, wanted: int) -> None:
        """Adds the records for `name`, along CNAMEs; NXDOMAIN when the last name has nothing at or below it."""
        records = self._records
        for _ in range(MAX_CNAMES):
            here = _at(records, name)
            if here is None:
                reply.header.rcode = RCODE.NXDOMAIN
                return
            found = [record for record in here if wanted in (record.rtype, QTYPE.ANY)]
            alias = next((record for record in here if record.rtype == QTYPE.CNAME), None)
            for record in found or ([alias] if alias else []):
                reply.add_answer(RR(name, record.rtype, record.rclass, record.ttl, record.rdata))
            if found or alias is None:
                return
            name = _plain(alias.rdata.label)


def _at(records: Mapping[str, list[RR]], name: str) -> list[RR] | None:
    """The records at a name: its own, or a wildcard's (RFC 4592); None when the name doesn't exist."""
    if name in records:
        return records[name]
    # An empty non-terminal exists (RFC 8020).
    if any(other.endswith("." + name) for other in records):
        return []
    parent = name
    while "." in parent:
        parent = parent.split(".", 1)[1]
        if f"*.{parent}" in records:
            return records[f"*.{parent}"]
        # RFC 4592, 3.3.1: only the closest existing ancestor's wildcard counts.
        if parent in records or any(other.endswith("." + parent) for other in records):
            return None
    return None


def _plain(name: object) -> str:
    return str(name).lower().rstrip(".")


def _parsed(data: bytes) -> DNSRecord | None:
    with contextlib.suppress(DNSError):
        query = DNSRecord.parse(data)
        if query.questions:
            return query
    return None


def _udp_bytes(query: DNSRecord) -> int:
    for record in query.ar:
        if record.rtype == QTYPE.OPT:
            return max(CLASSIC_UDP_BYTES, int(record.rclass))
    return CLASSIC_UDP_BYTES
