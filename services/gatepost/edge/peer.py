"""Who is at the other end: addresses as we write them, and the client's verified certificate."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from gatepost.core.configuration_tls import ClientCertificate


class Arrival(msgspec.Struct, frozen=True):
    """A connection that came through a doorway: the client, and the address that it reached, PROXY considered."""

    client: str
    client_port: int
    server: str


def plain_address(address: str) -> str:
    """The peer's address; IPv4 in IPv6 (RFC 4291 2.5.5.2) as IPv4, and no zone (RFC 4007 11)."""
    if ":" not in address:
        return address
    return address.split("%", 1)[0].removeprefix("::ffff:") if "." in address else address.split("%", 1)[0]


def client_certificate(tls_object: Any) -> ClientCertificate | None:
    """The certificate that the client showed and our CAs vouch for; None without one."""
    encoded = tls_object.getpeercert(binary_form=True)
    if not encoded:
        return None
    # Only a certificate that was verified is given in this form.
    names = (tls_object.getpeercert() or {}).get("subjectAltName", ())
    return ClientCertificate(
        hashlib.sha256(encoded).hexdigest(), tuple(name.lower() for kind, name in names if kind == "DNS")
    )
