"""TLS as a client of mail hosts wants it: anything rather than clear, or a certificate that is checked."""

from __future__ import annotations

import ssl

from gatepost.core.ports.transport import HostPort


def opportunistic_context() -> ssl.SSLContext:
    """Encrypt without asking who it is (RFC 7435 3): the alternative is to send in clear.

    The cipher list takes the small keys of old hosts for the same reason.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


def verifying_context(ca_file: str) -> ssl.SSLContext:
    """Check the certificate against the host's name, with these CAs or the system's (`ca_file` empty)."""
    return ssl.create_default_context(cafile=ca_file or None)


def server_name(host: HostPort) -> str:
    """The name to ask for and to check: without a final dot; the address where there is no name."""
    name = host.name.strip("[]").removesuffix(".")
    return name or host.address
