"""One message over one connection: the envelope, the content, and a reply for each recipient."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import structlog

from gatepost.backends.smtp_client.commands import (
    Extensions,
    content_size,
    mail_line,
    needs_smtputf8,
    rcpt_line,
)
from gatepost.backends.smtp_client.limits import Dialect, Limits
from gatepost.backends.smtp_client.replies import Reply
from gatepost.backends.smtp_client.stuffing import BareNewline, DotStuffer
from gatepost.backends.smtp_client.wire import Wire, WireError, WireGarbled
from gatepost.core.ports.transport import OutgoingMessage, RemoteReply

# A content up to this is prepared whole, so that its faults are found before MAIL is sent.
WHOLE_LIMIT: Final = 256 * 1024
PIECE: Final = 256 * 1024

_BARE_NEWLINE: Final = RemoteReply(554, "5.6.0", "The content has a line end that is not CRLF and cannot be sent")
_UNREADABLE: Final = RemoteReply(451, "4.3.0", "The content cannot be read now")
_UNKNOWN: Final = (
    "after the whole message was sent: whether it was accepted is unknown, so that it may arrive twice"
)

_log = structlog.get_logger("gatepost.smtp_client")


class NotStarted(Exception):
    """The connection ended before MAIL was answered, so nothing of the message can have been taken."""

    def __init__(self, reply: RemoteReply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class LocalRefusal(Exception):
    """The content cannot be sent to any host; nothing was sent."""

    def __init__(self, reply: RemoteReply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class Transaction:
    """Runs once. Afterwards `reusable` says whether the connection is in step, `open` whether RSET is needed."""

    def __init__(
        self,
        wire: Wire,
        dialect: Dialect,
        limits: Limits,
        extensions: Extensions,
        remote: str,
        message: OutgoingMessage,
    ) -> None:
        self._wire = wire
        self._dialect = dialect
        self._limits = limits
        self._extensions = extensions
        self._remote = remote
        self._message = message
        self._results: list[RemoteReply | None] = [None] * len(message.recipients)
        self._accepted: list[int] = []
        self._closing: RemoteReply | None = None
        self.reusable = False
        self.open = False

    async def run(self) -> list[RemoteReply]:
        """Return a reply for each recipient, in order. Raises NotStarted and LocalRefusal."""
        prepared = _prepared(self._message)
        try:
            go_ahead = await (self._pipelined() if "PIPELINING" in self._extensions else self._step_by_step())
            if go_ahead:
                await self._content(prepared)
            self.reusable = self._wire.idle and self._closing is None
        except WireError as error:
            self._wire.abort()
            self._settle(self._closing or _of_error(error, self._remote))
        undecided = RemoteReply(451, "4.4.2", "The host did not answer for this recipient", self._remote)
        return [result or undecided for result in self._results]

    # --- the envelope ---

    async def _step_by_step(self) -> bool:
        if not self._mail_answered(await self._first_reply(mail_line(self._message, self._extensions))):
            return False
        for place, line in enumerate(self._rcpt_lines()):
            self._rcpt_answered(place, await self._ask(line, self._limits.command))
        if not self._accepted:
            return False
        return self._data_answered(await self._ask(b"DATA\r\n", self._limits.data_start))

    async def _pipelined(self) -> bool:
        """All commands in one piece (RFC 2920 3.1); their replies come in the same order."""
        lines = [mail_line(self._message, self._extensions), *self._rcpt_lines(), b"DATA\r\n"]
        mail_good = self._mail_answered(await self._first_reply(b"".join(lines)))
        for place in range(len(self._results)):
            reply = await self._wire.reply(self._limits.command)
            if mail_good:
                self._rcpt_answered(place, reply)
            else:
                self._note_closing("RCPT", reply)
        data = await self._wire.reply(self._limits.data_start)
        if self._accepted:
            return self._data_answered(data)
        if data.code == 354:
            # RFC 2920 3.1: a server may say 354 although it took no recipient; only the dot may follow.
            self._wire.write(b".\r\n")
            await self._wire.reply(self._limits.data_end)
            self.open = False
        return False

    async def _first_reply(self, data: bytes) -> Reply:
        """Send the first command and return its reply. Raises NotStarted, also for 421."""
        self._wire.write(data)
        try:
            reply = await self._wire.reply(self._limits.command)
        except WireError as error:
            self._wire.abort()
            raise NotStarted(_of_error(error, self._remote)) from None
        if reply.code == 421:
            self._wire.abort()
            raise NotStarted(self._shown(reply, "MAIL"))
        return reply

    async def _ask(self, line: bytes, limit: float) -> Reply:
        self._wire.write(line)
        return await self._wire.reply(limit)

    def _rcpt_lines(self) -> list[bytes]:
        utf8 = needs_smtputf8(self._message)
        return [rcpt_line(recipient, self._extensions, utf8) for recipient in self._message.recipients]

    def _mail_answered(self, reply: Reply) -> bool:
        if 200 <= reply.code < 300:
            self.open = True
            return True
        self._must_be_refusal(reply)
        self._settle(self._shown(reply, "MAIL"))
        return False

    def _rcpt_answered(self, place: int, reply: Reply) -> None:
        if 200 <= reply.code < 300:
            self._accepted.append(place)
            return
        self._must_be_refusal(reply)
        self._note_closing("RCPT", reply)
        self._results[place] = self._shown(reply, "RCPT")

    def _data_answered(self, reply: Reply) -> bool:
        if reply.code == 354:
            return True
        self._must_be_refusal(reply)
        self._note_closing("DATA", reply)
        self._settle(self._shown(reply, "DATA"))
        return False

    # --- the content ---

    async def _content(self, prepared: bytes | None) -> None:
        try:
            if prepared is not None:
                self._wire.write(prepared)
            elif not await self._stream():
                return
        except WireError as error:
            await self._broken_off(error)
            return
        self.open = False
        try:
            await self._final_replies()
        except WireError as error:
            self._wire.abort()
            shown = self._closing or _of_error(error, self._remote)
            self._settle(RemoteReply(shown.code, shown.enhanced, f"{shown.text}, {_UNKNOWN}", self._remote, "END"))

    async def _stream(self) -> bool:
        """Send a large content piece by piece; False when it ended before the final dot."""
        stuffer = DotStuffer()
        refusal: RemoteReply
        try:
            self._wire.write(stuffer.feed(self._message.prepend))
            async for piece in self._message.body.pieces(PIECE):
                self._wire.write(stuffer.feed(piece))
                await self._wire.drain(self._limits.data_block)
                # Neither a body in memory nor a host that keeps up makes us wait: let others run, and let the
                # loop see what the host says.
                await asyncio.sleep(0)
                if self._wire.answered:
                    # A host that answers before the end has failed; the rest would be for nothing.
                    raise WireGarbled("The host answered before the end of the content")
            self._wire.write(stuffer.finish())
            return True
        except WireError:
            raise
        except BareNewline:
            refusal = _BARE_NEWLINE
        except Exception:
            _log.exception("body_unreadable", id=self._message.id)
            refusal = _UNREADABLE
        # Without the final dot the host takes nothing (RFC 5321 4.1.1.4).
        self._wire.abort()
        self._settle(refusal)
        return False

    async def _broken_off(self, error: WireError) -> None:
        """The connection failed within the content; what the host said about it comes first."""
        shown = _of_error(error, self._remote)
        if self._wire.answered:
            try:
                reply = await self._wire.reply(self._limits.command)
                if reply.code >= 400:
                    shown = self._shown(reply, "END")
            except WireError as broken:
                shown = _of_error(broken, self._remote)
        self._wire.abort()
        self._settle(shown)

    async def _final_replies(self) -> None:
        """One reply for all, or with LMTP one for each accepted recipient in their order (RFC 2033 4.2)."""
        if self._dialect is Dialect.SMTP:
            self._settle(self._final(await self._wire.reply(self._limits.data_end)))
            return
        for place in self._accepted:
            self._results[place] = self._final(await self._wire.reply(self._limits.data_end))

    def _final(self, reply: Reply) -> RemoteReply:
        self._note_closing("END", reply)
        shown = self._shown(reply, "END")
        if 200 <= reply.code < 300:
            return msgspec.structs.replace(shown, dsn=self._dialect is Dialect.SMTP and "DSN" in self._extensions)
        self._must_be_refusal(reply)
        return shown

    # --- replies ---

    def _settle(self, reply: RemoteReply) -> None:
        """Give a reply to every recipient that has none yet."""
        self._results = [result or reply for result in self._results]

    def _note_closing(self, command: str, reply: Reply) -> None:
        if reply.code == 421 and self._closing is None:
            self._closing = self._shown(reply, command)

    def _must_be_refusal(self, reply: Reply) -> None:
        if reply.code < 400:
            raise WireGarbled(f"The host answered {reply.code} where that has no meaning")

    def _shown(self, reply: Reply, command: str) -> RemoteReply:
        return RemoteReply(reply.code, reply.enhanced, reply.text, self._remote, command)


def _prepared(message: OutgoingMessage) -> bytes | None:
    """Return a small content as it goes on the wire, None for a large one. Raises LocalRefusal."""
    if content_size(message) > WHOLE_LIMIT:
        return None
    stuffer = DotStuffer()
    try:
        return stuffer.feed(message.prepend + message.body.whole()) + stuffer.finish()
    except BareNewline:
        raise LocalRefusal(_BARE_NEWLINE) from None
    except Exception:
        _log.exception("body_unreadable", id=message.id)
        raise LocalRefusal(_UNREADABLE) from None


def _of_error(error: WireError, remote: str) -> RemoteReply:
    # RFC 3463 3.5 and 3.6: X.4.2 bad connection, X.5.0 other protocol status.
    return RemoteReply(451, "4.5.0" if isinstance(error, WireGarbled) else "4.4.2", str(error), remote)
