"""The TLS context of a listener: built from its files, changed in place when the files or the policy change.

One context lives as long as its listener, so session tickets stay good over a renewal of the certificate
(resumption, RFC 8446 2.2, saves most of a handshake).
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Final

import structlog

from gatepost.core.manifest.relay_policy import TlsVersion

HANDSHAKE_TIMEOUT: Final = 30.0  # a handshake is two round trips; RFC 5321 has no limit for it
SHUTDOWN_TIMEOUT: Final = 3.0

_VERSIONS: Final = {TlsVersion.V1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.V1_3: ssl.TLSVersion.TLSv1_3}

_log = structlog.get_logger("gatepost.edge.tls")


class TlsError(Exception):
    """The certificate or key cannot be used; the message names the files."""


class TlsContext:
    """`context` is what handshakes use. Raises TlsError when the files cannot be used at the start."""

    def __init__(self, listener: str, certificate: Path, key: Path) -> None:
        self._listener, self._certificate, self._key = listener, certificate, key
        self._seen = self._state()
        self._complained: object = None
        self.context = _new_context()
        self._load(self.context)

    def set_minimum(self, version: TlsVersion) -> None:
        """Refuse older protocol versions in handshakes from now on."""
        self.context.minimum_version = _VERSIONS[version]

    def refresh(self) -> None:
        """Load the files again when they have changed. Ones that cannot be used are named once and not taken."""
        state = self._state()
        if state == self._seen or state == self._complained:
            return
        try:
            self._load(_new_context())  # a pair that does not fit must not get into the living context
            self._load(self.context)
        except TlsError as error:
            self._complained = state
            _log.error("certificate not reloaded", listener=self._listener, reason=str(error))
            return
        self._seen = state
        _log.info("certificate reloaded", listener=self._listener, file=str(self._certificate))

    def _state(self) -> object:
        """What changes whenever one of the files is replaced, also through a symbolic link (Kubernetes Secrets)."""
        try:
            return tuple(
                (found.st_mtime_ns, found.st_ino, found.st_size)
                for found in (os.stat(self._certificate), os.stat(self._key))
            )
        except OSError:
            return None

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._certificate, self._key)
        except (OSError, ssl.SSLError) as error:
            reason = (
                error.strerror if type(error) is not ssl.SSLError and error.strerror else error.__class__.__name__
            )
            raise TlsError(
                f"listener {self._listener!r}: certificate {self._certificate} with key {self._key}: {reason}"
            ) from None


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 1  # a mail client opens its connections one after the other
    return context
