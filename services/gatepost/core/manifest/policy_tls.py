"""RelayPolicy's `relay.clientCertificates`: servers that may relay because of the certificate they show."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatepost.core.manifest.object import DomainText, NetworkText, SpecPart

Fingerprint = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}$", min_length=64, max_length=95)
]


class ClientCertificates(SpecPart, frozen=True):
    """Clients that may relay by their certificate, which the listener's clientCaFile must vouch for.

    Clients are asked for a certificate only where this stands. One that shows a certificate that is not vouched for
    cannot connect: name `networks`, unless only own servers use the listener.
    """

    fingerprints: Annotated[tuple[Fingerprint, ...], msgspec.Meta(max_length=256)] = ()
    """SHA-256 of certificates, hexadecimal, with colons or without."""
    names: Annotated[tuple[DomainText, ...], msgspec.Meta(max_length=256)] = ()
    """DNS names; a certificate counts that has one of them as subjectAltName."""
    networks: Annotated[tuple[NetworkText, ...], msgspec.Meta(max_length=256)] = ()
    """Only clients from here are asked for a certificate; unset: all of the listener."""
