"""core.ports.transport.Transport: a message to one host, over a connection that may be an old one."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import structlog

from gatepost.backends.smtp_client.commands import local_fault
from gatepost.backends.smtp_client.connection import Connection, TlsFailed, open_connection
from gatepost.backends.smtp_client.limits import Dialect, Limits, relay_limits
from gatepost.backends.smtp_client.pool import Lease, Pool, PoolKey
from gatepost.backends.smtp_client.tls import opportunistic_context, server_name, verifying_context
from gatepost.backends.smtp_client.transaction import NotStarted
from gatepost.core.manifest.settings import RelaySettings
from gatepost.core.ports.transport import HostFailure, HostPort, OutgoingMessage, RemoteReply, TlsUse

_log = structlog.get_logger("gatepost.smtp_client")


class SmtpTransport:
    """Sends by SMTP, or by LMTP when made with that dialect.

    TlsUse.OPPORTUNISTIC encrypts where it can without checking the certificate; where the handshake fails, a
    fresh connection goes in clear. TlsUse.REQUIRE never sends in clear and checks the certificate for the host's
    name, with the CAs in `ca_file` or the system's.
    """

    def __init__(
        self,
        settings: RelaySettings | None = None,
        *,
        dialect: Dialect = Dialect.SMTP,
        limits: Limits | None = None,
        ca_file: str = "",
    ) -> None:
        self._limits = limits or relay_limits(settings or RelaySettings())
        self._dialect = dialect
        self._ca_file = ca_file
        self._contexts: dict[TlsUse, ssl.SSLContext] = {}
        self._pool = Pool(self._open, self._limits)

    async def send(self, host: HostPort, message: OutgoingMessage, tls: TlsUse, helo: str) -> Sequence[RemoteReply]:
        """As the port says. HostFailure also stands for a connection that ended before MAIL was answered."""
        if not message.recipients:
            return []
        fault = local_fault(message)
        if fault is not None:
            _log.error("envelope_unsendable", id=message.id, reason=fault.text)
            return [fault] * len(message.recipients)
        key = PoolKey(host, tls, helo)
        lease = await self._pool.acquire(key)
        try:
            return await self._send_on(lease, message)
        except NotStarted as ended:
            if not lease.reused:
                raise HostFailure(ended.reply) from None
        # The host had closed the connection that was kept; that says nothing of a new one.
        lease = await self._pool.acquire(key, fresh=True)
        try:
            return await self._send_on(lease, message)
        except NotStarted as ended:
            raise HostFailure(ended.reply) from None

    async def close(self) -> None:
        await self._pool.close()

    async def _send_on(self, lease: Lease, message: OutgoingMessage) -> Sequence[RemoteReply]:
        try:
            results = await lease.connection.send(message)
        except BaseException:
            # Also when we are cancelled: what the host has of this message must not be ended by the next one.
            self._pool.discard(lease)
            raise
        self._pool.release(lease)
        return results

    async def _open(self, key: PoolKey) -> Connection:
        context = self._context(key.tls)
        require = key.tls is TlsUse.REQUIRE
        try:
            return await open_connection(key.host, self._dialect, self._limits, key.helo, context, require)
        except TlsFailed as failed:
            if require:
                raise HostFailure(failed.reply) from None
            _log.warning(
                "tls_failed", host=server_name(key.host), address=key.host.address, reason=failed.reply.text
            )
        try:
            return await open_connection(key.host, self._dialect, self._limits, key.helo, None, False)
        except TlsFailed as failed:
            raise HostFailure(failed.reply) from None

    def _context(self, tls: TlsUse) -> ssl.SSLContext | None:
        if tls is TlsUse.NEVER:
            return None
        if tls not in self._contexts:
            self._contexts[tls] = (
                verifying_context(self._ca_file) if tls is TlsUse.REQUIRE else opportunistic_context()
            )
        return self._contexts[tls]
