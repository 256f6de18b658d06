"""relay.clientCertificates and tls.requiredFor -> their normalised form."""

from __future__ import annotations

from gatepost.core.compile.conditions import ACCEPTED, Rejection
from gatepost.core.compile.values import checked_networks
from gatepost.core.configuration_tls import NO_RIGHTS, CertificateRights
from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.manifest.policy_tls import ClientCertificates
from gatepost.core.manifest.settings import Role

_FIELD = "spec.relay.clientCertificates"


def certificate_rights(wanted: ClientCertificates | None, role: Role, warnings: list[str]) -> CertificateRights:
    """Return the rights, and add to the warnings. Raises Rejection."""
    if wanted is None:
        return NO_RIGHTS
    if not wanted.fingerprints and not wanted.names:
        raise Rejection(ACCEPTED, "Invalid", _FIELD, "fingerprints or names are needed")
    if role is Role.MX and not wanted.networks:
        warnings.append(
            "relay.clientCertificates without networks asks every client of a public MX for a certificate, and "
            "servers that show one which clientCaFile does not vouch for cannot connect"
        )
    try:
        names = tuple(sorted({canonical_domain(name) for name in wanted.names}))
    except DomainError as error:
        raise Rejection(ACCEPTED, "Invalid", f"{_FIELD}.names", str(error)) from None
    return CertificateRights(
        fingerprints=tuple(sorted({text.replace(":", "").lower() for text in wanted.fingerprints})),
        names=names,
        networks=checked_networks(wanted.networks, f"{_FIELD}.networks"),
    )
