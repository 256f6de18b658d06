"""The socket to a remote host: what is written, the replies that come, and a limit on every wait."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Final, cast

from gatepost.backends.smtp_client.replies import MAX_UNREAD, MAX_UNREAD_TEXT, GarbledReply, Reply, ReplyParser

# What may lie unsent in memory before writing waits: some pieces of content.
HIGH_WATER: Final = 512 * 1024


class WireError(Exception):
    """The connection is of no use any more; the text is for people and has nothing of an exception's text."""


class WireClosed(WireError):
    """The host closed or broke the connection."""


class WireTimeout(WireError):
    """The host did not answer or did not take data in time."""


class WireGarbled(WireError):
    """The host sent what is no reply."""


class Wire(asyncio.Protocol):
    """One connection. Replies come in order; those that had arrived are given before the error that followed."""

    def __init__(self) -> None:
        self._parser = ReplyParser()
        self._replies: deque[Reply] = deque()
        self._unread = 0  # characters in _replies
        self._error: WireError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._ended = asyncio.get_running_loop().create_future()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        if self._error is not None:
            return
        try:
            replies = self._parser.feed(data)
            self._replies.extend(replies)
            self._unread += sum(reply.length for reply in replies)
            if len(self._replies) > MAX_UNREAD or self._unread > MAX_UNREAD_TEXT:
                raise GarbledReply("replies to nothing")
        except GarbledReply as error:
            self._fail(WireGarbled(f"The host broke the protocol: {error}"))
            self.abort()
        if self._replies:
            self._wake()  # a part of a reply is none: its limit goes on

    def eof_received(self) -> None:
        self._fail(WireClosed("The host closed the connection"))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(WireClosed("The connection broke" if error else "The host closed the connection"))
        if not self._ended.done():
            self._ended.set_result(None)

    def pause_writing(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # --- for the connection ---

    @property
    def idle(self) -> bool:
        """Whether it is open and nothing unexpected has come."""
        return self._error is None and not self._replies and not self._parser.pending

    @property
    def answered(self) -> bool:
        """Whether a reply or an error is there to be read without waiting."""
        return bool(self._replies) or self._error is not None

    def write(self, data: bytes) -> None:
        if self._transport is not None and self._error is None:
            self._transport.write(data)

    async def drain(self, limit: float) -> None:
        """Wait until the host has taken most of what was written. Raises WireError."""
        if self._error is not None:
            raise self._error
        room = self._room
        if room is None:
            return
        try:
            async with asyncio.timeout(limit):
                await asyncio.shield(room)
        except TimeoutError:
            raise WireTimeout("The host did not take the data in time") from None
        if self._error is not None:
            raise self._error

    async def reply(self, limit: float) -> Reply:
        """Return the next reply. Raises WireError."""
        if not self._replies and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(limit):
                    await self._waiter
            except TimeoutError:
                raise WireTimeout("The host did not answer in time") from None
            finally:
                self._waiter = None
        if self._replies:
            reply = self._replies.popleft()
            self._unread -= reply.length
            return reply
        assert self._error is not None
        raise self._error

    async def start_tls(self, context: ssl.SSLContext, server_name: str, limit: float) -> None:
        """Encrypt. Raises WireError; the connection is closed then.

        What the host sent in clear behind its answer to STARTTLS was not protected and must not count as an
        answer of the encrypted session (RFC 3207 6).
        """
        if not self.idle or self._transport is None:
            raise WireGarbled("The host sent something between STARTTLS and the handshake")
        raw = self._transport
        try:
            transport = await asyncio.get_running_loop().start_tls(
                raw, self, context, server_hostname=server_name, ssl_handshake_timeout=limit
            )
        except (OSError, ssl.SSLError) as error:
            raw.abort()
            self._fail(WireClosed("The TLS handshake failed"))
            if isinstance(error, ssl.SSLCertVerificationError):
                raise WireError(f"The certificate is not valid: {error.verify_message}") from None
            raise WireError("The TLS handshake failed") from None
        if transport is None:
            raise WireClosed("The host closed the connection")
        self.connection_made(transport)

    def abort(self) -> None:
        """Close at once; what was not sent yet is dropped."""
        self._fail(WireClosed("The connection was closed"))
        if self._transport is not None:
            self._transport.abort()

    async def close(self, limit: float) -> None:
        """Send what was written, then close; at once after `limit` seconds."""
        if self._transport is None:
            return
        self._transport.close()
        await asyncio.wait({self._ended}, timeout=limit)
        if not self._ended.done():
            self._transport.abort()

    def _fail(self, error: WireError) -> None:
        if self._error is None:
            self._error = error
        self.resume_writing()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
