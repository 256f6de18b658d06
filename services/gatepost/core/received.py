"""The Received field that the edge adds, and how many a message has already (RFC 5321 4.4, 6.3)."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from gatepost.core.message import date_time

# What may stand after "from" as it is: RFC 5321 4.1.2 Domain, or an address literal.
_PLAIN_HELO = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
    r"|\[[0-9.]+\]|\[IPv6:[0-9A-Fa-f:.]+\]"
)
# ctext of RFC 5322 3.2.2 less its quoting: what a comment can hold without any trick.
_NOT_COMMENT = re.compile(r"[^\x21-\x27\x2a-\x5b\x5d-\x7e]")


class Reception(msgspec.Struct, frozen=True):
    """The facts of one reception. `tls` is the protocol and cipher, or empty; `port` the client's, 0: not known;
    `name` what a host that we trust calls it."""

    helo: str
    client: str
    hostname: str
    message_id: str
    received_ms: int
    extended: bool = True
    tls: str = ""
    authenticated: bool = False
    smtputf8: bool = False
    only_recipient: str = ""
    port: int = 0
    name: str = ""


def protocol(reception: Reception) -> str:
    """The "with" keyword: SMTP, ESMTP with S and A (RFC 3848), or the UTF8SMTP ones (RFC 6531 4.3)."""
    if not reception.extended:
        return "SMTP"  # RFC 3848: S and A exist with ESMTP only
    name = "UTF8SMTP" if reception.smtputf8 else "ESMTP"
    return f"{name}{'S' if reception.tls else ''}{'A' if reception.authenticated else ''}"


def received_field(reception: Reception) -> str:
    """The whole field with CRLF. `for` stands only with one recipient (RFC 5321 7.6: others stay unknown)."""
    literal = address_literal(reception.client)
    if _PLAIN_HELO.fullmatch(reception.name):
        literal = f"{reception.name} {literal}"  # RFC 5321 4.4: TCP-info
    if _PLAIN_HELO.fullmatch(reception.helo):
        source = f"{reception.helo} ({literal})"
    elif not reception.helo:
        source = literal  # the policy lets clients send without a greeting
    else:
        source = f"{literal} (HELO {_NOT_COMMENT.sub('?', reception.helo)})"
    tls = f" ({reception.tls})" if reception.tls else ""
    # Many clients share one address behind a carrier's NAT: only the port tells them apart (RFC 6302 2).
    port = f" (client port {reception.port})" if reception.port else ""
    recipient = f"\r\n\tfor <{reception.only_recipient}>" if reception.only_recipient else ""
    return (
        f"Received: from {source}\r\n"
        f"\tby {reception.hostname} with {protocol(reception)}{tls}{port}\r\n"
        f"\tid {reception.message_id}{recipient};\r\n"
        f"\t{_date(reception.received_ms // 1000)}\r\n"
    )


def address_literal(address: str) -> str:
    """RFC 5321 4.1.3: [192.0.2.1] or [IPv6:2001:db8::1]."""
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def count_received(header: bytes | bytearray) -> int:
    """How many Received fields a header has: the hops so far (RFC 5321 6.3)."""
    return (b"\r\n" + bytes(header).lower()).count(b"\r\nreceived:")


@lru_cache(maxsize=4)
def _date(second: int) -> str:
    return date_time(second * 1000)
