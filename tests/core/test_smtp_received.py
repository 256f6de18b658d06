"""The Received field's forms, and that nothing a client says can break out of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.message import fields, header_end
from gatepost.core.received import Reception, count_received, protocol, received_field
from gatepost.core.smtp_commands import CommandError, parse_helo

BASE = {
    "helo": "client.example.org",
    "client": "192.0.2.1",
    "hostname": "mx.example.test",
    "message_id": "01M3250V00K4W3E4S8CN7WRRBS",
    "received_ms": 1_790_000_000_000,
}


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"extended": False}, "SMTP"),
        ({}, "ESMTP"),
        ({"tls": "TLSv1.3 X"}, "ESMTPS"),
        ({"authenticated": True}, "ESMTPA"),
        ({"tls": "TLSv1.3 X", "authenticated": True}, "ESMTPSA"),
        ({"smtputf8": True}, "UTF8SMTP"),
        ({"smtputf8": True, "tls": "TLSv1.3 X"}, "UTF8SMTPS"),
        ({"smtputf8": True, "authenticated": True}, "UTF8SMTPA"),
        ({"smtputf8": True, "tls": "TLSv1.3 X", "authenticated": True}, "UTF8SMTPSA"),
    ],
)
def test_protocol_names(facts: dict[str, object], name: str) -> None:
    """RFC 3848 and RFC 6531 4.3."""
    assert protocol(Reception(**{**BASE, **facts})) == name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "start"),
    [
        ({}, "from client.example.org ([192.0.2.1])"),
        ({"helo": "[192.0.2.1]"}, "from [192.0.2.1] ([192.0.2.1])"),
        ({"client": "2001:db8::1"}, "from client.example.org ([IPv6:2001:db8::1])"),
        ({"helo": "my_pc"}, "from [192.0.2.1] (HELO my_pc)"),
        ({"helo": "a\\b"}, "from [192.0.2.1] (HELO a?b)"),
    ],
)
def test_from(facts: dict[str, object], start: str) -> None:
    field = received_field(Reception(**{**BASE, **facts}))  # type: ignore[arg-type]
    assert field.startswith(f"Received: {start}\r\n\tby mx.example.test with ESMTP\r\n")


@given(st.binary(max_size=300))
def test_whatever_the_client_calls_itself_it_is_one_field(name: bytes) -> None:
    try:
        helo = parse_helo(name)
    except CommandError:
        return
    field = received_field(Reception(**{**BASE, "helo": helo})).encode()  # type: ignore[arg-type]
    assert [found for found, _ in fields(field + b"\r\n")] == [b"received"]
    assert header_end(field + b"\r\n") == len(field)
    assert max(len(line) for line in field.split(b"\r\n")) <= 998
    assert count_received(field) == 1


def test_a_client_without_a_greeting_is_named_by_its_address() -> None:
    field = received_field(Reception("", "192.0.2.1", "mx.example.test", "ID", 0, extended=False))
    assert field.startswith("Received: from [192.0.2.1]\r\n\tby mx.example.test with SMTP\r\n")
