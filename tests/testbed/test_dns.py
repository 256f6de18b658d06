"""The scriptable DNS server, asked over real sockets by dnslib's client."""

import socket
from collections.abc import Iterator

import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSRecord

from testbed.dns import FakeDns, Fault, Query

ZONE = """
$ORIGIN example.test.
$TTL 60
@ IN SOA ns hostmaster 1 3600 600 86400 5
@ IN MX 10 mx
mx IN A 127.0.0.1
mx IN AAAA ::1
alias IN CNAME mx
deep.below IN A 192.0.2.1
*.wild IN A 192.0.2.2
wild IN TXT "here"
_25._tcp.mx IN TLSA 3 1 1 00ff
"""
SECONDS = 5.0


@pytest.fixture
def dns() -> Iterator[FakeDns]:
    with FakeDns(ZONE) as server:
        yield server


def ask(dns: FakeDns, name: str, qtype: str = "A", *, tcp: bool = False, udp_bytes: int = 0) -> DNSRecord:
    question = DNSRecord.question(name, qtype)
    if udp_bytes:
        question.add_ar(EDNS0(udp_len=udp_bytes))
    return DNSRecord.parse(question.send("127.0.0.1", dns.port, tcp=tcp, timeout=SECONDS))


def data(answer: DNSRecord) -> list[str]:
    return [f"{QTYPE[record.rtype]} {record.rdata}" for record in answer.rr]


@pytest.mark.parametrize(
    ("name", "qtype", "rcode", "records"),
    [
        ("example.test", "MX", RCODE.NOERROR, ["MX 10 mx.example.test."]),
        ("MX.Example.Test", "AAAA", RCODE.NOERROR, ["AAAA ::1"]),
        ("alias.example.test", "A", RCODE.NOERROR, ["CNAME mx.example.test.", "A 127.0.0.1"]),
        ("_25._tcp.mx.example.test", "TLSA", RCODE.NOERROR, ["TLSA 3 1 1 00FF"]),
        ("mx.example.test", "TXT", RCODE.NOERROR, []),
        ("below.example.test", "A", RCODE.NOERROR, []),
        ("any.wild.example.test", "A", RCODE.NOERROR, ["A 192.0.2.2"]),
        ("nothing.example.test", "A", RCODE.NXDOMAIN, []),
    ],
)
@pytest.mark.parametrize("tcp", [False, True])
def test_answers(dns: FakeDns, name: str, qtype: str, rcode: int, records: list[str], tcp: bool) -> None:
    answer = ask(dns, name, qtype, tcp=tcp)
    assert (answer.header.rcode, data(answer)) == (rcode, records)
    assert dns.seen == [Query("tcp" if tcp else "udp", name.lower(), qtype)]


def test_faults_by_name_and_type_change_while_it_runs(dns: FakeDns) -> None:
    dns.behave.update({"mx.example.test/A": Fault.SERVFAIL, "example.test": "refused", "alias.example.test": "ad"})
    assert ask(dns, "mx.example.test").header.rcode == RCODE.SERVFAIL
    assert ask(dns, "mx.example.test", "AAAA").header.rcode == RCODE.NOERROR
    assert ask(dns, "example.test", "MX").header.rcode == RCODE.REFUSED
    assert ask(dns, "alias.example.test").header.ad == 1
    dns.behave.clear()
    assert ask(dns, "mx.example.test").header.rcode == RCODE.NOERROR
    dns.behave["*"] = Fault.SERVFAIL
    assert ask(dns, "alias.example.test").header.rcode == RCODE.SERVFAIL


def test_a_dropped_query_is_seen_but_not_answered(dns: FakeDns) -> None:
    dns.behave["mx.example.test"] = Fault.DROP
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", dns.port))
        client.send(DNSRecord.question("mx.example.test").pack())
        # The next query's answer is the first thing to come: the dropped one was passed over.
        client.send(DNSRecord.question("alias.example.test").pack())
        client.settimeout(SECONDS)
        assert str(DNSRecord.parse(client.recv(4096)).q.qname) == "alias.example.test."
    assert dns.asked("mx.example.test") == 1


def test_truncation_leads_to_tcp(dns: FakeDns) -> None:
    dns.behave["mx.example.test"] = Fault.TRUNCATE
    assert (ask(dns, "mx.example.test").header.tc, data(ask(dns, "mx.example.test"))) == (1, [])
    assert data(ask(dns, "mx.example.test", tcp=True)) == ["A 127.0.0.1"]
    dns.behave["mx.example.test"] = Fault.TRUNCATE_DROP
    assert ask(dns, "mx.example.test").header.tc == 1
    with socket.create_connection(("127.0.0.1", dns.port)) as client:
        question = DNSRecord.question("mx.example.test").pack()
        client.sendall(len(question).to_bytes(2) + question)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_a_big_answer_is_truncated_unless_edns_makes_room(dns: FakeDns) -> None:
    dns.add("".join(f'big.test. 60 IN TXT "{number:03}{"x" * 100}"\n' for number in range(9)))
    assert ask(dns, "big.test", "TXT").header.tc == 1
    assert len(ask(dns, "big.test", "TXT", udp_bytes=1232).rr) == 9
    assert len(ask(dns, "big.test", "TXT", tcp=True).rr) == 9


def test_a_wrong_id_and_a_slow_name(dns: FakeDns) -> None:
    dns.behave["mx.example.test"] = Fault.WRONG_ID
    question = DNSRecord.question("mx.example.test")
    answer = DNSRecord.parse(question.send("127.0.0.1", dns.port, timeout=SECONDS))
    assert answer.header.id != question.header.id
    dns.behave["mx.example.test"] = 0.2
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", dns.port))
        client.settimeout(SECONDS)
        for name in ("mx.example.test", "alias.example.test"):
            client.send(DNSRecord.question(name).pack())
        order = [str(DNSRecord.parse(client.recv(4096)).q.qname) for _ in range(2)]
    assert order == ["alias.example.test.", "mx.example.test."]


def test_records_can_be_replaced_while_it_runs(dns: FakeDns) -> None:
    dns.remove("mx.example.test")
    assert ask(dns, "mx.example.test").header.rcode == RCODE.NOERROR  # _25._tcp.mx is still below it
    dns.set_zone("other.test. 60 IN A 192.0.2.9")
    assert ask(dns, "mx.example.test").header.rcode == RCODE.NXDOMAIN
    assert data(ask(dns, "other.test")) == ["A 192.0.2.9"]
