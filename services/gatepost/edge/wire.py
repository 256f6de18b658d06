"""The bytes of a session: lines in, replies out, content in between, and nothing else.

A subclass of aiosmtpd's SMTP with a data_received of its own: no StreamReader and no task wait for lines. What can
be decided at once is decided inside data_received; only what must wait for something outside gets a task, one at a
time, and what arrives meanwhile is kept (up to READ_AHEAD, then the client is made to wait). The replies to all
commands that came together leave in one write (RFC 2920 3.2).

__init__ does not call the parent's, which costs about a tenth of a millisecond for each connection and shares
command_size_limits between all of them; none of the parent's coroutines runs here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

import structlog
from aiosmtpd.smtp import SMTP

from gatepost.core.data_reader import DataReader
from gatepost.core.smtp_commands import MAX_AUTH_LINE

READ_AHEAD: Final = 64 * 1024  # bytes kept while a command waits for something
LINES_AT_ONCE: Final = 100  # then other sessions get their turn
MOST_UNSENT: Final = 16 * 1024  # bytes of replies that are collected before they are written
# s in which a client may take our last reply: a close with unread input is a reset, with unsent output it waits.
LINGER: Final = 5.0
NEVER: Final = float("inf")

_log = structlog.get_logger("gatepost.edge")


class Wire(SMTP):
    """One connection. Subclasses say what lines and content mean; the server watches `deadline` (loop time)."""

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.deadline = NEVER
        self.idle_timeout = 300.0
        self.lenient_lines = False
        self.content_bytes = 0
        self.slow = 0.0  # seconds that each line waits before it is taken
        self.reader: DataReader | None = None
        self.lost = False
        self.closing = False
        self._buffer = b""
        self._place = 0
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        self._task: asyncio.Task[None] | None = None
        self._skipping = False
        self._at_eof = False
        self._writes_paused = False
        self._reads_paused = False
        self._scheduled = False
        self._waited = False

    # -- what a subclass adds

    def opened(self) -> None:
        """The connection is there (for implicit TLS: after the handshake)."""
        raise NotImplementedError

    def line_received(self, line: bytes) -> None:
        """A whole line without its end, of at most MAX_AUTH_LINE octets."""
        raise NotImplementedError

    def content_received(self, piece: bytes) -> bool:
        """A piece of content, perhaps empty; `reader` says whether it was the last. False: wait with more."""
        raise NotImplementedError

    def line_too_long(self) -> None:
        """A line was passed over because it was longer than any may be."""
        raise NotImplementedError

    def bare_newline(self) -> None:
        """A line feed came without its carriage return, in a command."""
        raise NotImplementedError

    def failed(self) -> None:
        """An exception of ours was logged; the session cannot go on."""
        raise NotImplementedError

    def waiting(self) -> None:
        """All that came was answered, and the next move is the client's."""

    def forgotten(self) -> None:
        """The connection is lost and no task is left."""

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # a stream server makes no other
        self._guard(self.opened)
        self.flush()

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        if self._place < len(self._buffer):
            self._buffer = self._buffer[self._place :] + data
        else:
            self._buffer = data
        self._place = 0
        if self._task is None and not self._scheduled:
            self._run()
        elif len(self._buffer) > READ_AHEAD:
            self._pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more; what it sent is still answered (RFC 5321 leaves half-closing open)."""
        self._at_eof = True
        if self.closing:
            return False
        if self._task is None and not self._scheduled:
            self._run()
        return self.transport.get_extra_info("sslcontext") is None

    def connection_lost(self, error: Exception | None) -> None:
        if self.lost:
            return
        self.lost = self.closing = True
        self.deadline = NEVER
        self._buffer, self._place = b"", 0
        if self._task is None:
            self.forgotten()
        elif not self.shielded:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writes_paused = True

    def resume_writing(self) -> None:
        self._writes_paused = False
        if self._task is None and not self.closing:
            self._run()

    # -- replies

    def write(self, data: bytes) -> None:
        """Queue bytes of a reply."""
        self._unsent.append(data)
        self._unsent_size += len(data)

    def flush(self) -> None:
        if self._unsent:
            data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
            self._unsent = []
            self._unsent_size = 0
            if not self.lost:
                self.transport.write(data)

    def hang_up(self) -> None:
        """Send what is queued and close; what else the client says is not heard."""
        if self.closing:
            return
        self.flush()
        unheard = (self.pending or self.reader is not None) and not self._at_eof
        self.closing = True
        self.reader = None
        self._buffer, self._place = b"", 0
        self.deadline = self.loop.time() + LINGER
        if unheard and self.transport.can_write_eof() and not self.transport.is_closing():
            self._resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.closing = True
        self.transport.abort()

    # -- tasks

    @property
    def shielded(self) -> bool:
        """Whether the running task must go on although the client is gone."""
        return False

    @property
    def task(self) -> asyncio.Task[None] | None:
        return self._task

    def work(self, function: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        """Do something that waits; the next line is read when it is done."""
        self.deadline = NEVER
        self._task = self.loop.create_task(self._work(function, arguments))

    async def _work(
        self, function: Callable[..., Coroutine[Any, Any, None]], arguments: tuple[object, ...]
    ) -> None:
        try:
            await function(*arguments)
        except Exception:
            self._broken()
        finally:
            self._task = None
            if self.lost:
                self.forgotten()
        if not self.closing:
            self._renew_deadline()
            self._run()

    def _guard(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            function(*arguments)
        except Exception:
            self._broken()

    def _broken(self) -> None:
        _log.exception("internal error in a session")
        if not self.closing:
            self.failed()

    # -- the loop over what has come

    @property
    def pending(self) -> bool:
        """Whether more has come than was taken."""
        return self._place < len(self._buffer)

    def discard_input(self) -> None:
        self._buffer, self._place = b"", 0

    def _renew_deadline(self) -> None:
        """From now on it is the client who is waited for."""
        self.deadline = self.loop.time() + self.idle_timeout

    def room(self) -> None:
        """Content that had to wait may go on."""
        if self._task is None and not self.closing:
            self._renew_deadline()
            self._run()

    def _run(self) -> None:
        """Take lines and content until there are none, a task runs, or something has to catch up."""
        try:
            starved = self._take()
        except Exception:
            self._broken()
            return
        if self._task is not None:
            return
        self.flush()
        if starved and not self.closing:
            if self._reads_paused:
                self._resume_reading()
            if self._at_eof:
                self.hang_up()
            else:
                self.waiting()

    def _take(self) -> bool:
        """True when only the client can bring this session on."""
        lines = 0
        while self._place < len(self._buffer):
            if self._unsent_size > MOST_UNSENT:
                self.flush()
            if self._writes_paused:
                self._pause_reading()
                return False
            if self.reader is not None:
                if not self._take_content(self.reader):
                    return False
            elif lines >= LINES_AT_ONCE:
                self._later()
                return False
            elif self.slow and self._slows_down():
                return False
            else:
                line = self._take_line()
                if line is None:
                    break
                lines += 1
                self.line_received(line)
            if self._task is not None or self.closing:
                return False
        if lines:
            self._renew_deadline()  # a line, not a byte, shows that somebody is there
        return True

    def _take_content(self, reader: DataReader) -> bool:
        """Feed all that has come; False when the body cannot take more at the moment."""
        buffer = self._buffer[self._place :] if self._place else self._buffer
        self._buffer, self._place = b"", 0
        self.content_bytes += len(buffer)
        piece = reader.feed(buffer)
        if reader.finished:
            self._buffer = reader.rest
        self._renew_deadline()
        if self.content_received(piece):
            return True
        self.deadline = NEVER
        self._pause_reading()
        return False

    def _take_line(self) -> bytes | None:
        """The next line (RFC 5321 2.3.8: only CR LF ends one), or None: it is not all here."""
        while not self.closing:
            buffer, place = self._buffer, self._place
            end = buffer.find(b"\n" if self.lenient_lines else b"\r\n", place)
            if end < 0:
                self._part_of_a_line()
                return None
            if self.lenient_lines:
                self._place = end + 1
                if end > place and buffer[end - 1] == 0x0D:
                    end -= 1
            else:
                self._place = end + 2
            if not self._skipping:
                return buffer[place:end]
            self._skipping = False
            self.line_too_long()
        return None

    def _part_of_a_line(self) -> None:
        rest = len(self._buffer) - self._place
        if not self._skipping and self._buffer.find(b"\n", self._place) >= 0:
            self.bare_newline()
        elif self._skipping or rest > MAX_AUTH_LINE + 1:
            # Bounded memory: only what may be the first half of the end is kept.
            self._skipping = True
            self._buffer = b"\r" if self._buffer.endswith(b"\r") else b""
            self._place = 0

    def _later(self) -> None:
        self._scheduled = True
        self.loop.call_soon(self._continue)

    def _continue(self) -> None:
        self._scheduled = False
        if self._task is None and not self.closing:
            self._run()

    def _slows_down(self) -> bool:
        """Whether the next line has to wait yet; each waits for `slow` seconds, by a timer."""
        if self._waited:
            self._waited = False
            return False
        if not self._scheduled:
            self._scheduled = True
            self.deadline = NEVER
            self.loop.call_later(self.slow, self._has_waited)
        return True

    def _has_waited(self) -> None:
        self._waited = True
        if not self.closing:
            self._renew_deadline()
        self._continue()

    def _pause_reading(self) -> None:
        if not self._reads_paused and not self.transport.is_closing():
            self._reads_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reads_paused:
            self._reads_paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()
