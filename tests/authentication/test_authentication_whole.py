"""One message from reception to passing it on, as those who wire it would do it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gatepost.backends.resolver_table import TableResolver
from gatepost.core.authentication.arc import ArcSealer, ArcStatus, ArcVerification
from gatepost.core.authentication.dkim import BodyHasher, DkimSigner, DkimVerification, hash_body
from gatepost.core.authentication.dmarc import DmarcStatus, check_dmarc
from gatepost.core.authentication.results_field import results, results_field, without_forged
from gatepost.core.authentication.spf import check_mail_from
from gatepost.core.headers import header_end, read_header
from gatepost.edge.dns_driver import drive

NOW = 1_800_000_000
LIMIT = 60.0
BODY = b"Hello\r\n" * 20_000


@pytest.fixture
def resolver(keys: Any) -> TableResolver:
    table = TableResolver()
    table.add("example.org", "TXT", "v=spf1 include:_spf.example.org -all")
    table.add("_spf.example.org", "TXT", "v=spf1 a:out.example.org -all")
    table.add("out.example.org", "A", "192.0.2.1")
    table.add("s._domainkey.example.org", "TXT", keys.rsa_record)
    table.add("e._domainkey.example.net", "TXT", keys.ed25519_record)
    table.add("_dmarc.example.org", "TXT", "v=DMARC1; p=reject")
    return table


def pieces(body: bytes) -> Iterator[bytes]:
    for at in range(0, len(body), 65_536):
        yield body[at : at + 65_536]


async def test_from_reception_to_passing_on(resolver: TableResolver, keys: Any) -> None:
    header = b"Authentication-Results: mx.example.net; dmarc=pass\r\nFrom: <a@example.org>\r\nSubject: s\r\n"
    signer = DkimSigner("example.org", "s", keys.rsa)
    header = signer.sign(read_header(header), hash_body(BODY, {signer.wanted}), NOW) + header

    spf = (
        await drive(check_mail_from("192.0.2.1", "out.example.org", "a@example.org", "us", NOW), resolver, LIMIT)
    ).result
    fields = read_header(header + b"\r\n")
    dkim, arc = DkimVerification(fields), ArcVerification(fields)
    sealer = ArcSealer("example.net", "e", keys.ed25519)
    hasher = BodyHasher(dkim.wanted | arc.wanted | {sealer.wanted})
    for piece in pieces(BODY):
        hasher.update(piece)
    bodies = hasher.finish()
    signatures = (await drive(dkim.verify(bodies, NOW), resolver, LIMIT)).result
    chain = (await drive(arc.verify(bodies), resolver, LIMIT)).result
    dmarc = (await drive(check_dmarc(fields, spf, signatures), resolver, LIMIT)).result
    assert (dmarc.status, dmarc.spf, dmarc.dkim) == (DmarcStatus.PASS, "strict", "strict")

    clean = without_forged(header, {"mx.example.net"})
    assert b"Authentication-Results" not in clean
    ours = results_field("mx.example.net", spf=spf, signatures=signatures, arc=chain, dmarc=dmarc)
    assert "dmarc=pass policy.dmarc=none header.from=example.org" in ours
    leaving = read_header(clean)
    sealed = sealer.seal(
        leaving, bodies, chain, "mx.example.net", results(spf, None, signatures, chain, dmarc), NOW
    )
    assert sealed is not None

    message = sealed + ours.encode() + clean + b"\r\n" + BODY
    next_hop = ArcVerification(read_header(message))
    bodies = hash_body(message[header_end(message) + 2 :], next_hop.wanted)
    assert (await drive(next_hop.verify(bodies), resolver, LIMIT)).result.status is ArcStatus.PASS
