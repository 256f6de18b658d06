"""A scriptable SMTP or LMTP server that records what it is sent: the next hop in tests of the sending side.

It runs an event loop in a thread of its own, so that tests of any kind can use it. Commands are answered
strictly in their order, from whatever has arrived (RFC 2920), whether PIPELINING is announced or not: a client
that pipelines without leave is visible in `Session.pipelined`. What is accepted is kept byte for byte, without
the dots that RFC 5321, 4.5.2 adds.

    with SmtpSink() as sink:
        sink.script("RCPT", "450 4.2.1 later", match="bob@", times=2)
        ...
        assert sink.await_transactions(1)[0].data == message
"""

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from testbed import ports
from testbed.accepting import accept_no_more
from testbed.network import HERE, Place
from testbed.running import Running
from testbed.smtp_conversation import Conversation, Rule, Session, Transaction
from testbed.tls import Certificate, server_context

_T = TypeVar("_T")

START_SECONDS = 10.0
HANDSHAKE_SECONDS = 1.0
POLL_SECONDS = 0.005
DEFAULT_KEYWORDS = (
    "PIPELINING",
    "8BITMIME",
    "SMTPUTF8",
    "CHUNKING",
    "DSN",
    "ENHANCEDSTATUSCODES",
    "SIZE 104857600",
)

# The points at which a script may act: the commands, and
# CONNECT: before the greeting; BODY: while the content comes in; END: after all of it, where LMTP asks for each
# recipient (`match` is searched for in the recipient's address).
POINTS = frozenset(
    (
        *("CONNECT", "EHLO", "HELO", "LHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT", "BODY", "END"),
        *("RSET", "NOOP", "VRFY", "QUIT", "OTHER"),
    )
)


class SmtpSink(Running):
    """The server, a context manager; `port` at `place`.

    `keywords` are announced in answer to EHLO and may be replaced at any time; STARTTLS and AUTH are announced
    by themselves when there is a `certificate` or there are `users` (name -> password, PLAIN and LOGIN).
    Commands of extensions that aren't announced are refused as RFC 5321 says. With `implicit_tls` the connection
    begins with TLS.
    """

    def __init__(
        self,
        *,
        lmtp: bool = False,
        hostname: str = "sink.test",
        keywords: Sequence[str] = DEFAULT_KEYWORDS,
        certificate: Certificate | None = None,
        implicit_tls: bool = False,
        users: Mapping[str, str] | None = None,
        port: int | None = None,
        place: Place = HERE,
    ) -> None:
        self.lmtp = lmtp
        self.hostname = hostname
        self.keywords = list(keywords)
        self.users = dict(users or {})
        self.implicit_tls = implicit_tls
        self.sessions: list[Session] = []
        self.transactions: list[Transaction] = []
        self.port = port or ports.reserve()
        self._place = place
        self.certificate = certificate
        self._rules: list[Rule] = []
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None

    def script(
        self,
        point: str,
        reply: str | None = None,
        *,
        match: str | None = None,
        times: int | None = None,
        skip: int = 0,
        delay: float = 0.0,
        drop: bool = False,
        hang: bool = False,
        after: int = 0,
    ) -> None:
        """Adds a rule for one of POINTS; of the rules that fit, the first one added acts.

        It waits `delay` seconds, sends `reply` instead of the usual one (text without the last CRLF, sent as it is,
        several lines too), and then closes the connection if `drop`, or never answers again if `hang`. It acts only
        where the regular expression `match` (case ignored) is found in the command's line, not for the first `skip`
        occasions, and `times` times (default: always). At BODY it acts once `after` bytes of content have come in.
        """
        if point not in POINTS:
            raise ValueError(f"no such point: {point}")
        pattern = re.compile(match, re.IGNORECASE) if match else None
        with self._guard:
            self._rules.append(Rule(point, reply, pattern, times, skip, delay, drop, hang, after))

    def clear_script(self) -> None:
        """Forgets all rules."""
        with self._guard:
            self._rules.clear()

    def await_transactions(self, count: int, seconds: float = 10.0) -> list[Transaction]:
        """The transactions once there are at least `count`; raises TimeoutError when they don't come in time."""
        return self._await(lambda: self.transactions, count, seconds)

    def await_sessions(self, count: int, seconds: float = 10.0) -> list[Session]:
        """The sessions once at least `count` connections have been opened; raises TimeoutError."""
        return self._await(lambda: self.sessions, count, seconds)

    def start(self) -> None:
        """Starts listening; the port is bound when this returns."""
        started: list[BaseException | None] = []
        ready = threading.Event()

        def begun(error: BaseException | None) -> None:
            started.append(error)
            ready.set()

        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(begun)), daemon=True, name=f"smtpsink-{self.port}"
        )
        self._thread.start()
        if not ready.wait(START_SECONDS):
            raise TimeoutError("the sink's thread did not start")
        if started[0] is not None:
            raise started[0]

    def stop(self) -> None:
        """Closes the listener and all connections; the port stays reserved, so that `start` may follow."""
        if self._thread is None or self._loop is None or self._stopping is None:
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(START_SECONDS)
        self._thread = None

    def _await(self, items: Callable[[], list[_T]], count: int, seconds: float) -> list[_T]:
        deadline = time.monotonic() + seconds
        while len(items()) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(items())} after {seconds} s, not {count}")
            time.sleep(POLL_SECONDS)
        return list(items())

    async def _main(self, begun: Callable[[BaseException | None], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        conversations: set[asyncio.Task[None]] = set()

        def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(Conversation(self, reader, writer).run())
            conversations.add(task)
            task.add_done_callback(conversations.discard)
            task.add_done_callback(lambda _: writer.close())  # also of one that was cancelled before it began

        try:
            context = server_context(self.certificate) if self.implicit_tls and self.certificate else None
            listener = self._place.call(
                lambda: socket.create_server((self._place.address, self.port), backlog=1024)
            )
            server = await asyncio.start_server(converse, sock=listener, ssl=context, backlog=1024)
        except OSError as error:
            begun(error)
            return
        begun(None)
        await self._stopping.wait()
        await accept_no_more(server.sockets)
        await self._end_all(conversations)
        server.close()

    @staticmethod
    async def _end_all(conversations: set[asyncio.Task[None]]) -> None:
        """Ends what was accepted, the last connections too: the loop's tasks that begin them are let finish."""
        own = asyncio.current_task()
        while tasks := asyncio.all_tasks() - {own}:
            for task in conversations & tasks:
                task.cancel()
            _, hanging = await asyncio.wait(tasks, timeout=HANDSHAKE_SECONDS)
            for task in hanging:  # in a TLS handshake
                task.cancel()
        await asyncio.sleep(0)  # their transports are closed in the loop's next round

    def rule(self, point: str, text: str, received: int | None = None) -> Rule | None:
        """The rule that acts at this point, if any; one that does is used up by one."""
        with self._guard:
            for rule in self._rules:
                if rule.point == point and (received is None or received >= rule.after) and rule.takes(text):
                    return rule
        return None
