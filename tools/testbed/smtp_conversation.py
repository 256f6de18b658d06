"""One connection of the SMTP sink: what it answers, what its script changes, and what it writes down."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from testbed.tls import server_context

if TYPE_CHECKING:
    from testbed.smtpsink import SmtpSink

READ_BYTES = 256 * 1024


@dataclass(frozen=True)
class Recipient:
    """One accepted RCPT: the address without angle brackets, and its parameters as sent."""

    address: str
    parameters: tuple[str, ...]


@dataclass
class Session:
    """One connection, with what came in on it."""

    client: tuple[str, int]
    greeted_as: str = ""
    extended: bool = False
    tls: str = ""  # the protocol version; empty in the clear
    tls_name: str = ""  # the name that the client asked for (SNI)
    login: str = ""
    commands: list[str] = field(default_factory=list)
    pipelined: bool = False  # a command came in before the one before it was answered
    error: str = ""  # why it ended when it didn't end by QUIT


@dataclass(frozen=True)
class Transaction:
    """One content that came in completely, written down just before it is answered.

    `accepted` lists the recipients whose final answer is 2xx.
    """

    session: Session
    helo: str
    tls: str
    login: str
    sender: str
    parameters: tuple[str, ...]
    recipients: tuple[Recipient, ...]
    data: bytes
    accepted: tuple[str, ...]

    @property
    def addresses(self) -> list[str]:
        """The recipients' addresses in the order of their RCPT."""
        return [recipient.address for recipient in self.recipients]


@dataclass
class Rule:
    point: str
    reply: str | None
    match: re.Pattern[str] | None
    times: int | None
    skip: int
    delay: float
    drop: bool
    hang: bool
    after: int

    def takes(self, text: str) -> bool:
        """Whether it acts now; counts `skip` and `times` down."""
        if self.times == 0 or (self.match is not None and not self.match.search(text)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Drop(Exception):
    """The script wants the connection closed at this point."""


class Conversation:
    """One connection's protocol."""

    def __init__(self, sink: SmtpSink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sink = sink
        self._reader, self._writer = reader, writer
        self._buffer = bytearray()
        self._session = Session(client=writer.get_extra_info("peername")[:2])
        self._announced: set[str] = set()
        self._reset()

    async def run(self) -> None:
        """Talks until QUIT, the client's end or the script's; never raises but for cancellation."""
        self._sink.sessions.append(self._session)
        try:
            self._note_tls()
            await self._reply("CONNECT", f"220 {self._sink.hostname} {'LMTP' if self._sink.lmtp else 'ESMTP'} sink")
            while (line := await self._line()) is not None:
                if not await self._command(line):
                    return
            self._session.error = "the client closed the connection"
        except (OSError, Drop) as error:
            self._session.error = str(error) or type(error).__name__
        finally:
            self._writer.close()

    def _reset(self) -> None:
        self._sender: str | None = None
        self._parameters: tuple[str, ...] = ()
        self._recipients: list[Recipient] = []
        self._chunks = bytearray()

    # Reading and writing

    async def _line(self) -> str | None:
        """The next line without its CRLF, or None at the end of the connection."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            if not await self._read():
                return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line.decode("utf-8", "surrogateescape")

    async def _read(self) -> bool:
        # Answers are sent when there's nothing left to read from what has arrived (RFC 2920, 3.2).
        await self._writer.drain()
        data = await self._reader.read(READ_BYTES)
        self._buffer += data
        return bool(data)

    async def _reply(self, point: str, usual: str, text: str = "") -> str:
        """Sends the scripted reply or the usual one; returns the one sent."""
        return await self._answer(self._sink.rule(point, text), usual)

    async def _answer(self, rule: Rule | None, usual: str) -> str:
        if rule is not None:
            await self._obey(rule)
        reply = rule.reply if rule is not None and rule.reply is not None else usual
        self._send(reply)
        return reply

    async def _obey(self, rule: Rule) -> None:
        await asyncio.sleep(rule.delay)
        if rule.drop:
            if rule.reply is not None:
                self._send(rule.reply)
                await self._writer.drain()
                # A plain end instead of a reset, so that the client gets to read the reply.
                if self._writer.can_write_eof():
                    self._writer.write_eof()
            raise Drop(f"dropped at {rule.point} by the script")
        if rule.hang:
            await asyncio.Event().wait()

    def _send(self, reply: str) -> None:
        self._writer.write(reply.encode("utf-8", "surrogateescape") + b"\r\n")

    # Commands

    async def _command(self, line: str) -> bool:
        """Answers one command; False when it was the last one."""
        session = self._session
        session.commands.append(line)
        if self._buffer:
            session.pipelined = True
        verb = line.split(" ", 1)[0].upper()
        match verb:
            case "EHLO" | "HELO" | "LHLO":
                await self._hello(verb, line)
            case "STARTTLS":
                await self._start_tls(line)
            case "AUTH":
                await self._authenticate(line)
            case "MAIL":
                await self._mail(line)
            case "RCPT":
                await self._rcpt(line)
            case "DATA":
                await self._data(line)
            case "BDAT":
                await self._bdat(line)
            case "RSET":
                await self._reply("RSET", "250 2.0.0 reset", line)
                self._reset()
            case "NOOP":
                await self._reply("NOOP", "250 2.0.0 nothing done", line)
            case "VRFY":
                await self._reply("VRFY", "252 2.1.5 send and see", line)
            case "QUIT":
                await self._reply("QUIT", "221 2.0.0 bye", line)
                await self._writer.drain()
                return False
            case _:
                await self._reply("OTHER", "500 5.5.2 what?", line)
        return True

    async def _hello(self, verb: str, line: str) -> None:
        sink, session = self._sink, self._session
        if sink.lmtp != (verb == "LHLO"):
            await self._reply(verb, "500 5.5.1 wrong greeting for this protocol", line)
            return
        keywords = [] if verb == "HELO" else self._keywords()
        lines = [sink.hostname, *keywords]
        usual = "\r\n".join(f"250{' ' if line is lines[-1] else '-'}{line}" for line in lines)
        if (await self._reply(verb, usual, line)).startswith("2"):
            session.greeted_as = line.partition(" ")[2].strip()
            session.extended = verb != "HELO"
            self._announced = {keyword.split(" ", 1)[0].upper() for keyword in keywords}
            self._reset()

    def _keywords(self) -> list[str]:
        sink = self._sink
        keywords = list(sink.keywords)
        if sink.certificate is not None and not self._session.tls:
            keywords.append("STARTTLS")
        if sink.users:
            keywords.append("AUTH PLAIN LOGIN")
        return keywords

    async def _start_tls(self, line: str) -> None:
        certificate = self._sink.certificate
        if certificate is None or self._session.tls:
            await self._reply("STARTTLS", "502 5.5.1 no STARTTLS here", line)
            return
        if not (await self._reply("STARTTLS", "220 2.0.0 go ahead", line)).startswith("2"):
            return
        await self._writer.drain()
        # RFC 3207, 4.2: nothing that was sent or learnt before counts.
        self._buffer.clear()
        self._reset()
        self._session.greeted_as = ""
        # A context of its own, since the callback that learns the server name (SNI) belongs to the context.
        context = server_context(certificate)
        context.sni_callback = self._note_tls_name
        await self._writer.start_tls(context)
        self._note_tls()

    def _note_tls_name(self, _connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        self._session.tls_name = name or ""

    def _note_tls(self) -> None:
        connection = self._writer.get_extra_info("ssl_object")
        if isinstance(connection, ssl.SSLObject):
            self._session.tls = connection.version() or ""

    async def _authenticate(self, line: str) -> None:
        if not self._sink.users:
            await self._reply("AUTH", "502 5.5.1 no AUTH here", line)
            return
        words = line.split()
        mechanism = words[1].upper() if len(words) > 1 else ""
        try:
            if mechanism == "PLAIN":
                initial = words[2] if len(words) > 2 else await self._challenge("")
                _, name, password = base64.b64decode(initial).decode().split("\0")
            elif mechanism == "LOGIN":
                first = words[2] if len(words) > 2 else await self._challenge("VXNlcm5hbWU6")
                name = base64.b64decode(first).decode()
                password = base64.b64decode(await self._challenge("UGFzc3dvcmQ6")).decode()
            else:
                await self._reply("AUTH", "504 5.5.4 unknown mechanism", line)
                return
        except ValueError:
            await self._reply("AUTH", "501 5.5.2 not base64", line)
            return
        if self._sink.users.get(name) != password:
            await self._reply("AUTH", "535 5.7.8 wrong", line)
        elif (await self._reply("AUTH", "235 2.7.0 welcome", line)).startswith("2"):
            self._session.login = name

    async def _challenge(self, text: str) -> str:
        self._send(f"334 {text}")
        return await self._line() or ""

    async def _mail(self, line: str) -> None:
        address, parameters = _path(line)
        if self._sender is not None or not self._session.greeted_as:
            await self._reply("MAIL", "503 5.5.1 not now", line)
        elif not self._session.extended and parameters:
            await self._reply("MAIL", "555 5.5.4 no parameters after HELO", line)
        elif (unknown := self._unannounced(parameters)) is not None:
            await self._reply("MAIL", f"555 5.5.4 {unknown} was not announced", line)
        elif (await self._reply("MAIL", "250 2.1.0 sender fine", line)).startswith("2"):
            self._sender, self._parameters = address, parameters

    def _unannounced(self, parameters: Sequence[str]) -> str | None:
        needs = {"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN"}
        needs |= {"NOTIFY": "DSN", "ORCPT": "DSN", "AUTH": "AUTH", "REQUIRETLS": "REQUIRETLS"}
        for parameter in parameters:
            name = parameter.split("=", 1)[0].upper()
            if needs.get(name, name) not in self._announced:
                return name
        return None

    async def _rcpt(self, line: str) -> None:
        address, parameters = _path(line)
        if self._sender is None:
            await self._reply("RCPT", "503 5.5.1 MAIL first", line)
        elif (unknown := self._unannounced(parameters)) is not None:
            await self._reply("RCPT", f"555 5.5.4 {unknown} was not announced", line)
        elif (await self._reply("RCPT", "250 2.1.5 recipient fine", line)).startswith("2"):
            self._recipients.append(Recipient(address, parameters))

    async def _data(self, line: str) -> None:
        if self._sender is None or not self._recipients:
            # RFC 2033, 4.2 and RFC 5321, 4.1.1.4.
            code = "503 5.5.1 no valid recipients" if self._sink.lmtp else "554 5.5.1 no valid recipients"
            await self._reply("DATA", code, line)
        elif (await self._reply("DATA", "354 go ahead", line)).startswith("3"):
            content = await self._content()
            await self._finish(content)

    async def _content(self) -> bytes:
        """Reads up to the line with a single dot and takes the added dots away (RFC 5321, 4.5.2)."""
        searched = 0
        while True:
            if self._buffer.startswith(b".\r\n"):
                end, begin_next = 0, 3
                break
            found = self._buffer.find(b"\r\n.\r\n", max(0, searched - 4))
            if found >= 0:
                end, begin_next = found + 2, found + 5
                break
            searched = len(self._buffer)
            await self._while_body(searched)
            if not await self._read():
                raise Drop("the client closed the connection within the content")
        content = bytes(self._buffer[:end])
        await self._while_body(len(content))
        del self._buffer[:begin_next]
        if content.startswith(b"."):
            content = content[1:]
        return content.replace(b"\r\n.", b"\r\n")

    async def _while_body(self, received: int) -> None:
        rule = self._sink.rule("BODY", "", received)
        if rule is not None:
            await self._obey(rule)
            if rule.reply is not None:
                self._send(rule.reply)

    async def _bdat(self, line: str) -> None:
        words = line.upper().split()
        if len(words) < 2 or not words[1].isdigit():
            await self._reply("BDAT", "501 5.5.4 BDAT size [LAST]", line)
            return
        size = int(words[1])
        while len(self._buffer) < size:
            await self._while_body(len(self._chunks) + len(self._buffer))
            if not await self._read():
                raise Drop("the client closed the connection within a chunk")
        chunk = bytes(self._buffer[:size])
        del self._buffer[:size]
        if "CHUNKING" not in self._announced:
            await self._reply("BDAT", "502 5.5.1 CHUNKING was not announced", line)
        elif self._sender is None or not self._recipients:
            await self._reply("BDAT", "503 5.5.1 no valid recipients", line)
        else:
            self._chunks += chunk
            if words[-1] == "LAST":
                await self._finish(bytes(self._chunks))
            else:
                await self._reply("BDAT", f"250 2.0.0 {size} octets", line)

    async def _finish(self, content: bytes) -> None:
        """Answers the end of the content: once, or by LMTP for each recipient (RFC 2033, 4.2).

        The transaction is written down first, so that a client that has its answer finds it there.
        """
        everyone = [recipient.address for recipient in self._recipients]
        texts = everyone if self._sink.lmtp else [" ".join(everyone)]
        answers = [(self._sink.rule("END", text), "250 2.0.0 stored") for text in texts]
        accepted: list[str] = []
        for text, (rule, usual) in zip(texts, answers, strict=True):
            if rule is not None and rule.reply is None and (rule.drop or rule.hang):
                break
            if (rule.reply if rule is not None and rule.reply is not None else usual).startswith("2"):
                accepted += [text] if self._sink.lmtp else everyone
        session = self._session
        self._sink.transactions.append(
            Transaction(
                session=session,
                helo=session.greeted_as,
                tls=session.tls,
                login=session.login,
                sender=self._sender or "",
                parameters=self._parameters,
                recipients=tuple(self._recipients),
                data=content,
                accepted=tuple(accepted),
            )
        )
        self._reset()
        for rule, usual in answers:
            await self._answer(rule, usual)


def _path(line: str) -> tuple[str, tuple[str, ...]]:
    """The address and the parameters of a MAIL or RCPT line; quoted local parts may hold spaces and brackets."""
    found = re.match(r'[^:]*:\s*<((?:"(?:\\.|[^"\\])*"|[^>"])*)>\s*(.*)', line)
    if found is None:
        return line.partition(":")[2].strip(), ()
    return found[1], tuple(found[2].split())
