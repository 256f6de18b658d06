"""The TLS contexts of a listener: built from its files, changed in place when the files or the policy change.

A context lives as long as its listener, so session tickets stay good over a renewal of the certificate
(resumption, RFC 8446 2.2, saves most of a handshake). Only the context that asks for client certificates is made
anew, since a CA cannot be taken out of one. Certificates with different kinds of keys stand side by side: OpenSSL
gives a client the ECDSA one when it can use it (the server's preference counts), else the RSA one.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509

from gatepost.core.manifest.relay_policy import TlsVersion
from gatepost.core.manifest.settings import ListenerTls

HANDSHAKE_TIMEOUT: Final = 30.0  # a handshake is two round trips; RFC 5321 has no limit for it
SHUTDOWN_TIMEOUT: Final = 3.0
MOST_LOADS: Final = 3  # files that change while they are read are read again

_VERSIONS: Final = {TlsVersion.V1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.V1_3: ssl.TLSVersion.TLSv1_3}

Pair = tuple[Path, Path]

_log = structlog.get_logger("gatepost.edge.tls")


class TlsError(Exception):
    """The certificate or key cannot be used; the message names the files."""


class TlsContext:
    """`context` is what handshakes use, `asking` the one that asks the client for a certificate (None: no CAs).

    Raises TlsError when the files cannot be used at the start.
    """

    def __init__(self, listener: str, pairs: Sequence[Pair], client_ca: Path | None = None) -> None:
        self._listener, self._pairs, self._client_ca = listener, tuple(pairs), client_ca
        self._seen = self._state()
        self._complained: object = None
        self._minimum = ssl.TLSVersion.TLSv1_2
        self.context = _new_context()
        self._load(self.context)
        self.asking = None if client_ca is None else self._new_asking(client_ca)

    def set_minimum(self, version: TlsVersion) -> None:
        """Refuse older protocol versions in handshakes from now on."""
        self._minimum = _VERSIONS[version]
        self.context.minimum_version = self._minimum
        if self.asking is not None:
            self.asking.minimum_version = self._minimum

    def refresh(self) -> None:
        """Load the files again when they have changed. Ones that cannot be used are named once and not taken."""
        state = self._state()
        if state in (self._seen, self._complained):
            return
        for _ in range(MOST_LOADS):
            state = self._state()
            try:
                self._load(_new_context())  # a pair that does not fit must not get into the living context
                self._load(self.context)
                if self._client_ca is not None:
                    self.asking = self._new_asking(self._client_ca)
            except TlsError as error:
                self._complained = state
                _log.error("certificate not reloaded", listener=self._listener, reason=str(error))
                return
            if state == self._state():
                break
        self._seen = state
        _log.info("certificate reloaded", listener=self._listener, file=str(self._pairs[0][0]))

    def _state(self) -> object:
        """What changes whenever one of the files is replaced, also through a symbolic link (Kubernetes Secrets)."""
        files = [file for pair in self._pairs for file in pair]
        if self._client_ca is not None:
            files.append(self._client_ca)
        try:
            return tuple((found.st_mtime_ns, found.st_ino, found.st_size) for found in map(os.stat, files))
        except OSError:
            return None

    def _new_asking(self, client_ca: Path) -> ssl.SSLContext:
        context = _new_context()
        context.minimum_version = self._minimum
        self._load(context)
        context.verify_mode = ssl.CERT_OPTIONAL
        # A pinned certificate in the bundle is enough by itself, whoever issued it.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(f"listener {self._listener!r}: client CAs {client_ca}: {_reason(error)}") from None
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        kinds: dict[str, Path] = {}
        for certificate, key in self._pairs:
            try:
                context.load_cert_chain(certificate, key)
                kind = _kind_of_key(certificate)
            except (OSError, ssl.SSLError, ValueError) as error:
                raise TlsError(
                    f"listener {self._listener!r}: certificate {certificate} with key {key}: {_reason(error)}"
                ) from None
            if kind in kinds:
                raise TlsError(
                    f"listener {self._listener!r}: {certificate} and {kinds[kind]} have the same kind of key"
                )
            kinds[kind] = certificate


def tls_of(listener: str, settings: ListenerTls) -> TlsContext | None:
    """The TLS of a listener by its settings; None: it has no certificate. Raises TlsError."""
    pairs = [(Path(pair.certificate_file), Path(pair.key_file)) for pair in settings.certificates]
    if settings.certificate_file:
        pairs.insert(0, (Path(settings.certificate_file), Path(settings.key_file)))
    if not pairs:
        return None
    return TlsContext(listener, pairs, Path(settings.client_ca_file) if settings.client_ca_file else None)


def _kind_of_key(certificate: Path) -> str:
    return type(x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()).__name__


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.strerror:
        return error.strerror
    return error.__class__.__name__


def _new_context() -> ssl.SSLContext:
    """TLS 1.2 and up with Python's ciphers (forward secrecy first; no NULL, export, RC4, 3DES), no ALPN."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 1  # a mail client opens its connections one after the other
    return context
