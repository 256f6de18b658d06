"""A connection to one host: greeting, EHLO or LHLO, STARTTLS, then transactions one after another."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import Final

import msgspec

from gatepost.backends.smtp_client.commands import (
    Extensions,
    HostLimits,
    read_extensions,
    read_limits,
    rounds,
    unfit,
)
from gatepost.backends.smtp_client.limits import Dialect, Limits
from gatepost.backends.smtp_client.replies import Reply
from gatepost.backends.smtp_client.seven_bit import fitted
from gatepost.backends.smtp_client.tls import server_name
from gatepost.backends.smtp_client.transaction import LocalRefusal, NotStarted, Transaction
from gatepost.backends.smtp_client.wire import Wire, WireError, WireGarbled
from gatepost.core.ports.transport import HostFailure, HostPort, OutgoingMessage, RemoteReply

# A host that does not answer QUIT is not waited for: everything it took is settled.
QUIT_SECONDS: Final = 2.0

_REASONS: Final = {
    errno.ECONNREFUSED: "Connection refused",
    errno.EHOSTUNREACH: "No route to host",
    errno.ENETUNREACH: "Network is unreachable",
    errno.ECONNRESET: "Connection reset",
}
# RFC 3463 3.6: X.5.3 too many recipients.
_NEXT_TIME: Final = RemoteReply(452, "4.5.3", "More recipients than the host takes in one session")


class TlsFailed(Exception):
    """STARTTLS was accepted and the handshake failed: a fresh connection may be tried in clear."""

    def __init__(self, reply: RemoteReply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class Connection:
    """An open connection, made by open_connection. `sent` counts the messages that were tried on it."""

    def __init__(self, wire: Wire, host: HostPort, dialect: Dialect, limits: Limits) -> None:
        self._wire = wire
        self._host = host
        self._remote = host.name or host.address
        self._dialect = dialect
        self._limits = limits
        self._extensions: Extensions = {}
        self._host_limits = HostLimits()
        self._needs_reset = False
        self._in_step = True
        self.sent = 0

    @property
    def usable(self) -> bool:
        """Whether another message may be sent on it."""
        most = min(self._limits.messages_per_connection, self._host_limits.mails)
        return self._in_step and self._wire.idle and self.sent < most

    async def send(self, message: OutgoingMessage) -> list[RemoteReply]:
        """Send one message, as several where the host's limits want that; a reply for each recipient.

        Raises NotStarted: then nothing of it was sent.
        """
        fit = await fitted(message, self._extensions)
        if isinstance(fit, RemoteReply):
            return [fit] * len(message.recipients)
        message = fit
        refusal = unfit(message, self._extensions)
        if refusal is not None:
            self.sent += 1
            return [refusal] * len(message.recipients)
        parts = rounds(message.recipients, self._host_limits)
        if len(parts) == 1:
            return await self._send_part(message)
        results: list[RemoteReply] = [_NEXT_TIME] * len(message.recipients)
        for number, places in enumerate(parts):
            if number and not self.usable:
                break
            recipients = tuple(message.recipients[place] for place in places)
            try:
                replies = await self._send_part(msgspec.structs.replace(message, recipients=recipients))
            except NotStarted:
                if not number:
                    raise
                break
            for place, reply in zip(places, replies, strict=True):
                results[place] = reply
        return results

    async def _send_part(self, message: OutgoingMessage) -> list[RemoteReply]:
        self.sent += 1
        if self._needs_reset:
            await self._reset()
        transaction = Transaction(self._wire, self._dialect, self._limits, self._extensions, self._remote, message)
        self._in_step = False
        try:
            results = await transaction.run()
        except LocalRefusal as refused:
            self._in_step = True
            return [refused.reply] * len(message.recipients)
        self._in_step = transaction.reusable
        self._needs_reset = transaction.open
        return results

    def offers(self, keyword: str) -> bool:
        """Whether the host announced an extension."""
        return keyword in self._extensions

    async def inquire(self, command: str, line: str) -> Reply:
        """Say one line of a transaction that will have no message, and return the reply. Raises HostFailure."""
        self._needs_reset = True
        try:
            self._wire.write(line.encode("utf-8", "replace") + b"\r\n")
            return await self._wire.reply(self._limits.command)
        except WireError as error:
            self.abort()
            enhanced = "4.5.0" if isinstance(error, WireGarbled) else "4.4.2"
            raise HostFailure(RemoteReply(451, enhanced, str(error), self._remote, command)) from None

    async def quit(self) -> None:
        """Say goodbye where that is still possible, and close. Takes QUIT_SECONDS at most twice."""
        try:
            if self._in_step and self._wire.idle:
                await self._ask("QUIT", QUIT_SECONDS)
        except WireError:
            pass
        finally:
            await self._wire.close(QUIT_SECONDS)

    def abort(self) -> None:
        self._in_step = False
        self._wire.abort()

    # --- opening ---

    async def greet(self, helo: str) -> None:
        """Read the greeting and introduce ourselves. Raises HostFailure."""
        self._expect("CONNECT", await self._heard("CONNECT"))
        await self.hello(helo)

    async def hello(self, helo: str) -> None:
        """EHLO, or HELO where the host does not know it (RFC 5321 3.2); LHLO with LMTP (RFC 2033 4.1)."""
        verb = "LHLO" if self._dialect is Dialect.LMTP else "EHLO"
        reply = await self._heard(verb, f"{verb} {helo}")
        if verb == "EHLO" and 500 <= reply.code < 600:
            self._expect("HELO", await self._heard("HELO", f"HELO {helo}"))
            self._extensions, self._host_limits = {}, HostLimits()
            return
        self._expect(verb, reply)
        self._extensions = read_extensions(reply)
        self._host_limits = read_limits(self._extensions)

    @property
    def offers_tls(self) -> bool:
        return "STARTTLS" in self._extensions

    async def start_tls(self, context: ssl.SSLContext, helo: str) -> bool:
        """Encrypt and introduce ourselves again (RFC 3207 4.2); False when the host refuses STARTTLS.

        Raises TlsFailed and HostFailure.
        """
        reply = await self._heard("STARTTLS", "STARTTLS")
        if reply.code != 220:
            return False
        try:
            await self._wire.start_tls(context, server_name(self._host), self._limits.connect)
        except WireError as error:
            self.abort()
            # RFC 3463 3.8: X.7.5 cryptographic failure.
            raise TlsFailed(RemoteReply(451, "4.7.5", str(error), self._remote, "STARTTLS")) from None
        await self.hello(helo)
        return True

    # --- parts ---

    async def _heard(self, command: str, line: str = "") -> Reply:
        """Send a line (none for the greeting) and return the reply. Raises HostFailure."""
        try:
            return await self._ask(line, self._limits.command)
        except WireError as error:
            self.abort()
            enhanced = "4.5.0" if isinstance(error, WireGarbled) else "4.4.2"
            raise HostFailure(RemoteReply(451, enhanced, str(error), self._remote, command)) from None

    def _expect(self, command: str, reply: Reply) -> None:
        if 200 <= reply.code < 300:
            return
        self.abort()
        if reply.code < 400:
            text = f"The host answered {reply.code} where that has no meaning"
            raise HostFailure(RemoteReply(451, "4.5.0", text, self._remote, command))
        raise HostFailure(RemoteReply(reply.code, reply.enhanced, reply.text, self._remote, command))

    async def _ask(self, line: str, limit: float) -> Reply:
        if line:
            self._wire.write(line.encode("ascii", "replace") + b"\r\n")
        return await self._wire.reply(limit)

    async def _reset(self) -> None:
        """RSET, only after a transaction that was left open (RFC 5321 4.1.1.5). Raises NotStarted."""
        try:
            reply = await self._ask("RSET", self._limits.command)
        except WireError as error:
            self.abort()
            raise NotStarted(RemoteReply(451, "4.4.2", str(error), self._remote, "RSET")) from None
        if not 200 <= reply.code < 300:
            self.abort()
            raise NotStarted(RemoteReply(451, "4.5.0", "The host does not take RSET", self._remote, "RSET"))
        self._needs_reset = False


async def open_connection(
    host: HostPort, dialect: Dialect, limits: Limits, helo: str, context: ssl.SSLContext | None, require: bool
) -> Connection:
    """Connect and greet; with a `context` use STARTTLS where it is offered, with `require` never go without.

    Raises HostFailure, and TlsFailed when only the handshake failed.
    """
    wire = await _connect(host, limits.connect)
    connection = Connection(wire, host, dialect, limits)
    try:
        await connection.greet(helo)
        encrypted = context is not None and connection.offers_tls and await connection.start_tls(context, helo)
        if require and not encrypted:
            # RFC 3463 3.8: X.7.4 security features not supported.
            text = "TLS is required and the host does not offer it"
            raise HostFailure(RemoteReply(451, "4.7.4", text, host.name or host.address, "STARTTLS"))
    except BaseException:
        connection.abort()
        raise
    return connection


async def _connect(host: HostPort, limit: float) -> Wire:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(limit):
            _, wire = await loop.create_connection(Wire, host.address, host.port)
    except TimeoutError:
        raise _unreachable("Connection timed out") from None
    except socket.gaierror:
        raise _unreachable("The host name cannot be resolved") from None
    except OSError as error:
        raise _unreachable(_REASONS.get(error.errno or 0, "The connection failed")) from None
    return wire


def _unreachable(text: str) -> HostFailure:
    # RFC 3463 3.5: X.4.1 no answer from host.
    return HostFailure(RemoteReply(451, "4.4.1", text, "", "CONNECT"))
