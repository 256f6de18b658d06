"""The normalised form of what a listener's policy says about client certificates."""

from __future__ import annotations

from typing import Final

import msgspec

from gatepost.core.networks import NetworkSet


class CertificateRights(msgspec.Struct, frozen=True, omit_defaults=True):
    """Certificates that may relay: `fingerprints` as 64 lower-case hexadecimal digits, `names` as A-labels.

    Only clients of `networks` are asked for one; empty: all clients.
    """

    fingerprints: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


NO_RIGHTS: Final = CertificateRights()
"""One object, so that it is not written where it is the default."""


class ClientCertificate(msgspec.Struct, frozen=True):
    """A verified certificate of a client: SHA-256 in lower-case hexadecimal, its DNS names in lower case."""

    fingerprint: str
    names: tuple[str, ...] = ()


class CertificateTable:
    """Quick answers to: is this client asked for a certificate, and does this certificate give a right?"""

    def __init__(self, rights: CertificateRights) -> None:
        self._fingerprints = frozenset(rights.fingerprints)
        self._names = frozenset(rights.names)
        self._networks = NetworkSet(rights.networks)

    def __bool__(self) -> bool:
        return bool(self._fingerprints or self._names)

    def asks(self, client: str) -> bool:
        """Whether a client at this address is asked for its certificate."""
        return bool(self) and (not self._networks or client in self._networks)

    def __contains__(self, certificate: ClientCertificate) -> bool:
        return certificate.fingerprint in self._fingerprints or not self._names.isdisjoint(certificate.names)
