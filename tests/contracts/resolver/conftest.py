"""The two resolvers over one set of records."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gatepost.backends.resolver_dns import DnsResolver
from gatepost.backends.resolver_table import TableResolver
from gatepost.core.manifest.settings import DnsSettings
from gatepost.core.ports.resolver import Resolver
from testbed.dns import FakeDns, Fault

# (name, type, text form in the port, form in a zone file)
RECORDS = [
    ("example.test", "MX", "20 mx2.example.test", "20 MX2.Example.Test."),
    ("example.test", "MX", "10 mx1.example.test", "10 mx1.example.test."),
    ("example.test", "TXT", "v=spf1 -all", '"v=spf1" " -all"'),
    ("example.test", "TXT", "other", '"other"'),
    ("mx1.example.test", "A", "192.0.2.1", "192.0.2.1"),
    ("mx1.example.test", "AAAA", "2001:db8::1", "2001:db8::1"),
    ("mx2.example.test", "A", "192.0.2.2", "192.0.2.2"),
    ("six.example.test", "AAAA", "2001:db8::6", "2001:db8::6"),
    ("halves.example.test", "A", "192.0.2.7", "192.0.2.7"),
    ("null.test", "MX", "0 .", "0 ."),
    ("both.test", "MX", "0 .", "0 ."),
    ("both.test", "MX", "10 mx1.example.test", "10 mx1.example.test."),
    ("alias.test", "CNAME", "middle.test", "middle.test."),
    ("middle.test", "CNAME", "mx1.example.test", "mx1.example.test."),
    ("lost.test", "CNAME", "nowhere.test", "nowhere.test."),
    ("only.test", "TXT", "no addresses", '"no addresses"'),
    ("failing.test", "A", "192.0.2.9", "192.0.2.9"),
    ("1.2.0.192.in-addr.arpa", "PTR", "mx1.example.test", "MX1.example.test."),
    ("signed.test", "A", "192.0.2.4", "192.0.2.4"),
    ("_25._tcp.signed.test", "TLSA", "3 1 1 " + "ab" * 32, "3 1 1 " + "ab" * 32),
]
FAILING = ("failing.test", "halves.example.test/AAAA")
SECURE = ("signed.test", "_25._tcp.signed.test")


def table() -> TableResolver:
    resolver = TableResolver()
    for name, kind, record, _ in RECORDS:
        resolver.add(name, kind, record, secure=name in SECURE)
    for key in FAILING:
        resolver.fail(*key.split("/"))
    return resolver


def fake_dns() -> FakeDns:
    zone = "".join(f"{name}. 300 IN {kind} {form}\n" for name, kind, _, form in RECORDS)
    behave = dict.fromkeys(FAILING, Fault.SERVFAIL.value) | dict.fromkeys(SECURE, Fault.AUTHENTIC.value)
    return FakeDns(zone, behave)


@pytest.fixture(params=["table", "dns"])
async def resolver(request: pytest.FixtureRequest) -> AsyncIterator[Resolver]:
    if request.param == "table":
        yield table()
        return
    with fake_dns() as server:
        resolver = DnsResolver(DnsSettings(servers=(f"127.0.0.1:{server.port}",), timeout="5s"))
        await resolver.start()
        yield resolver
        await resolver.close()
