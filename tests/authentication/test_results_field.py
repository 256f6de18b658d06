"""Authentication-Results: what we write, and forged ones (RFC 8601)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.authentication.arc import ArcResult, ArcStatus
from gatepost.core.authentication.dkim import DkimSignatureResult, DkimStatus
from gatepost.core.authentication.dmarc import DmarcPolicy, DmarcResult, DmarcStatus
from gatepost.core.authentication.results_field import (
    collected_results,
    forged_results,
    results_field,
    split_results,
    without_forged,
)
from gatepost.core.authentication.spf import SpfIdentity, SpfResult, SpfStatus
from gatepost.core.headers import field_of, read_header

OURS = {"mx.example.net"}


def test_the_whole_field() -> None:
    text = results_field(
        "mx.example.net",
        helo=SpfResult(SpfStatus.NONE, SpfIdentity.HELO, "mx.example.org"),
        spf=SpfResult(SpfStatus.PASS, SpfIdentity.MAIL_FROM, "example.org", "a.b@Example.org"),
        signatures=[
            DkimSignatureResult(
                DkimStatus.PASS,
                domain="example.org",
                selector="s1",
                algorithm="rsa-sha256",
                key_bits=1024,
                weak_key=True,
                signature="ab/c+d==",
            ),
            DkimSignatureResult(DkimStatus.PERMERROR, 'no "key"', domain="list.test", selector="x"),
        ],
        arc=ArcResult(ArcStatus.NONE),
        dmarc=DmarcResult(DmarcStatus.FAIL, "example.org", disposition=DmarcPolicy.REJECT),
    )
    assert text == (
        "Authentication-Results: mx.example.net;\r\n"
        "\tspf=none smtp.helo=mx.example.org;\r\n"
        "\tspf=pass smtp.mailfrom=a.b@example.org;\r\n"
        "\tdkim=pass (1024-bit key) header.d=example.org header.s=s1\r\n"
        '\t header.a=rsa-sha256 header.b="ab/c+d==";\r\n'
        "\tdkim=permerror reason=\"no 'key'\" header.d=list.test header.s=x;\r\n"
        "\tarc=none;\r\n"
        "\tdmarc=fail policy.dmarc=reject header.from=example.org\r\n"
    )


def test_nothing_done_and_nothing_found() -> None:
    assert results_field("mx.example.net") == "Authentication-Results: mx.example.net;\r\n\tnone\r\n"
    assert results_field("mx.example.net", signatures=[]).endswith("\tdkim=none\r\n")


@pytest.mark.parametrize("local", ['"a b"', "ä", "a\x00b", 'x"', ""])
def test_a_local_part_that_could_break_the_field_is_left_out(local: str) -> None:
    spf = SpfResult(SpfStatus.FAIL, SpfIdentity.MAIL_FROM, "example.org", f"{local}@example.org")
    assert results_field("mx", spf=spf).endswith("spf=fail smtp.mailfrom=example.org\r\n")


@pytest.mark.parametrize(
    "value",
    [
        "mx.example.net; dkim=pass",
        "MX.Example.NET.; dkim=pass",
        "mx.example.net 1; dkim=pass",
        "(a (nested) comment) mx.example.net (b); dkim=pass",
        "\r\n\tmx.example.net\r\n\t; dkim=pass",
        '"mx.example.net"; dkim=pass',
        '"mx.\\example.net"; dkim=pass',
        "mx.example.net",
        "mx.example.net(;); none",
        "",
        "; dkim=pass",
        '"open; dkim=pass',
        "(open mx; dkim=pass",
    ],
)
def test_forged_results_are_found(value: str) -> None:
    """Fails without reading the authserv-id as readers do: they would believe the sender."""
    for name in (b"Authentication-Results", b"AUTHENTICATION-results \t"):
        header = b"A: 1\r\n" + name + b":" + value.encode() + b"\r\nB: 2\r\n"
        assert len(forged_results(read_header(header), OURS)) == 1
        assert without_forged(header, OURS) == b"A: 1\r\nB: 2\r\n"


@pytest.mark.parametrize(
    "header",
    [
        b"Authentication-Results: mx.example.org; dkim=pass\r\n",
        b"Authentication-Results: notmx.example.net; dkim=pass\r\n",
        b'Authentication-Results: a.test; dkim=fail reason="; mx.example.net; dkim=pass"\r\n',
        b"ARC-Authentication-Results: i=1; mx.example.net; dkim=pass\r\n",
        b"X-Authentication-Results: mx.example.net; dkim=pass\r\n",
    ],
)
def test_others_results_stay(header: bytes) -> None:
    assert forged_results(read_header(header), OURS) == ()
    assert without_forged(header, OURS) == header


def test_an_internationalized_id_is_ours_in_both_forms() -> None:
    fields = read_header("Authentication-Results: mx.münchen.example; none\r\n".encode())
    assert len(forged_results(fields, {"mx.xn--mnchen-3ya.example"})) == 1


def test_results_of_one_host_are_collected_for_the_next() -> None:
    header = (
        b"Authentication-Results: mx.example.net; spf=pass\r\n\tsmtp.mailfrom=a.test;\r\n dkim=none (a; b)\r\n"
        b"Authentication-Results: other.test; dkim=pass\r\n"
        b"Authentication-Results: mx.example.net; none\r\n"
        b'Authentication-Results: mx.example.net; dmarc=fail reason="x;\xff\x07"; \r\n'
    )
    assert collected_results(read_header(header), "mx.example.net") == [
        "spf=pass smtp.mailfrom=a.test",
        "dkim=none (a; b)",
        'dmarc=fail reason="x;??"',
    ]


TEXT = st.text(st.sampled_from(list('mx.; \t()"\\=a\r\n1ä\x00')), max_size=60)


@given(TEXT)
def test_any_value_is_cut_without_an_error(value: str) -> None:
    parts = split_results(value)
    assert all(parts)


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=20))
def test_what_is_written_is_one_field_whatever_strangers_wrote(sender: str, domain: str, authserv_id: str) -> None:
    from gatepost.core.authentication.names import plain

    spf = SpfResult(SpfStatus.PASS, SpfIdentity.MAIL_FROM, plain(domain), plain(sender), reason=plain(sender))
    text = results_field("mx.example.net", spf=spf)
    field = field_of(text.encode())
    assert field.name == b"authentication-results"
    assert split_results(field.value.decode())[0] == "mx.example.net"
    assert len(split_results(field.value.decode())) == 2
