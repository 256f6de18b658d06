"""Real DNSSEC: what a validating resolver says about a signed, an unsigned and a bogus zone."""

from collections.abc import Iterator

import pytest
from dnslib import RCODE, DNSRecord

from testbed.dnssec import SignedDns

pytestmark = pytest.mark.servers

ZONE = """
@ SOA ns hostmaster 1 3600 600 86400 5
@ NS ns
ns A 127.0.0.1
@ MX 10 mx
mx A 127.0.0.1
_25._tcp.mx TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
"""


@pytest.fixture(scope="module")
def dns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignedDns]:
    folder = tmp_path_factory.mktemp("dnssec")
    with SignedDns(folder, {"signed.test": ZONE}, {"plain.test": ZONE}, {"bogus.test": ZONE}) as server:
        yield server


@pytest.mark.parametrize(
    ("name", "qtype", "rcode", "authentic", "answers"),
    [
        ("signed.test", "MX", RCODE.NOERROR, True, True),
        ("_25._tcp.mx.signed.test", "TLSA", RCODE.NOERROR, True, True),
        ("nothing.signed.test", "A", RCODE.NXDOMAIN, True, False),
        ("plain.test", "MX", RCODE.NOERROR, False, True),
        ("bogus.test", "MX", RCODE.SERVFAIL, False, False),
    ],
)
def test_validation(dns: SignedDns, name: str, qtype: str, rcode: int, authentic: bool, answers: bool) -> None:
    question = DNSRecord.question(name, qtype)
    question.header.ad = 1
    answer = DNSRecord.parse(question.send("127.0.0.1", dns.port, timeout=10))
    assert (answer.header.rcode, bool(answer.header.ad), bool(answer.rr)) == (rcode, authentic, answers)
