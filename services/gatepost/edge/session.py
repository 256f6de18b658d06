"""The SMTP session: its state, what is refused whatever the command says, and the way from DATA to 250.

What each command does stands in commands/, one file per step of RFC 5321 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gatepost.core import smtp_replies as say
from gatepost.core.checks import content as content_check
from gatepost.core.configuration import ListenerPolicy
from gatepost.core.data_reader import DataReader
from gatepost.core.envelope import Client
from gatepost.core.ids import new_id
from gatepost.core.manifest.relay_policy import BareNewline
from gatepost.core.ports.directory import Entry as Account
from gatepost.core.received import address_literal
from gatepost.core.relay_right import relay_right
from gatepost.core.reply import Reply
from gatepost.core.smtp_commands import MAX_AUTH_LINE, CommandError
from gatepost.core.tables import ListenerTable, Tables
from gatepost.edge import journal
from gatepost.edge.body import ReceivedBody
from gatepost.edge.command_table import COMMANDS, FOREIGN_VERBS, QUIT
from gatepost.edge.early import spoke_first
from gatepost.edge.listener import Listener
from gatepost.edge.transaction import Transaction
from gatepost.edge.wire import NEVER, Wire
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from gatepost.edge.server import EdgeServer

GO_AHEAD: Final = b"354 End data with <CR><LF>.<CR><LF>\r\n"
RATE_WINDOW: Final = 60.0  # s over which a message's rate is judged


class Session(Wire):
    """One client. `account` is set by AUTH, `helo` by EHLO or HELO; `table` is the policy it was last met with."""

    def __init__(self, server: EdgeServer, listener: Listener) -> None:
        super().__init__(server.loop)
        self.server = server
        self.listener = listener
        self.client = ""
        self.client_port = 0
        self.helo = ""
        self.extended = False
        self.tls = ""
        self.account: Account | None = None
        self.auth_failures = 0
        self.errors = 0
        self.transaction: Transaction | None = None
        self.body: ReceivedBody | None = None
        self.dialogue: Callable[[bytes], None] | None = None
        self.revoked = False
        self._table: ListenerTable | None = None
        self._id = ""
        self._entered = False
        self._accepting = False
        self._ran_ahead = False
        self._window_start = 0.0
        self._window_bytes = 0

    # -- who and under what

    @property
    def id(self) -> str:
        """The session's id, made when it is first told to somebody."""
        if not self._id:
            self._id = new_id(self.server.deps.now_ms())
        return self._id

    @property
    def table(self) -> ListenerTable:
        """The listener's policy for this session; a session without one was refused when it was opened."""
        if self._table is None:
            raise LookupError("the session has no policy")
        return self._table

    @property
    def policy(self) -> ListenerPolicy:
        return self.table.policy

    @property
    def own_hosts(self) -> frozenset[str]:
        """This host's name and the address that the client reached it by, as domains of addresses."""
        name = self.transport.get_extra_info("sockname")
        literals = {address_literal(_plain_address(name[0]))} if name else set()
        return self.server.own_names | literals

    def refresh_policy(self) -> bool:
        """Take over the policy now in force; False when there is none any more (the session is ended then)."""
        table = self.listener.table
        if table is self._table and table is not None:
            return True
        if table is None:
            self.goodbye(say.NO_CONFIGURATION)
            return False
        self._use(table)
        return True

    def _use(self, table: ListenerTable) -> None:
        self._table = table
        self.idle_timeout = table.policy.idle_timeout
        self.lenient_lines = self.normalizes(table)

    def normalizes(self, table: ListenerTable) -> bool:
        """Whether bare CR and LF of this client are taken for line ends."""
        return table.policy.bare_newline is BareNewline.NORMALIZE or (
            bool(table.normalize) and self.client in table.normalize
        )

    # -- opening and closing

    def opened(self) -> None:
        peer = self.transport.get_extra_info("peername")
        if not peer:
            self.abort()  # reset before it was accepted
            return
        self.client, self.client_port = _plain_address(peer[0]), peer[1]
        self.server.remember(self)
        implicit = self.transport.get_extra_info("ssl_object")
        if implicit is not None:
            self.encrypted(implicit)
        refusal = self._refuse_connection()
        if refusal is not None:
            self.goodbye(refusal)
            return
        assert self.listener.table is not None
        self._use(self.listener.table)
        self._entered = True
        self.listener.enter(self.client)
        metrics.SESSIONS.add(self.listener.name)
        metrics.SESSIONS_OPEN.add(1, self.listener.name)
        self.deadline = self.loop.time() + self.idle_timeout
        self.write(self.server.greeting)

    def _refuse_connection(self) -> Reply | None:
        server, listener = self.server, self.listener
        if listener.table is None:
            return say.NO_CONFIGURATION
        if server.draining:
            return say.DRAINING
        if not server.deps.log.available:
            return say.LOG_AWAY
        if len(server.sessions) > server.max_sessions:
            return say.TOO_MANY_SESSIONS
        policy = listener.table.policy
        if listener.sessions >= policy.total_concurrent:
            return say.TOTAL_CONCURRENT
        if listener.hosts[self.client] >= policy.per_host_concurrent:
            return say.HOST_CONCURRENT
        if not self.tls and spoke_first(self.transport):
            return say.EARLY_TALKER
        return None

    def encrypted(self, tls_object: object) -> None:
        """TLS is in use from now on."""
        version, cipher = tls_object.version(), tls_object.cipher()  # type: ignore[attr-defined]
        self.tls = f"{version} {cipher[0]}" if cipher else str(version)

    def forgotten(self) -> None:
        if self.body is not None:
            self.body.close()
            self.body = None
        self.end_transaction()
        if self._entered:
            self._entered = False
            self.listener.leave(self.client)
            metrics.SESSIONS_OPEN.add(-1, self.listener.name)
        self.server.forget(self)

    def end_transaction(self) -> None:
        if self.transaction is not None:
            self.transaction.end()
            self.transaction = None

    @property
    def shielded(self) -> bool:
        return self._accepting

    # -- replies

    def refuse(self, reply: Reply, recipient: str = "") -> None:
        """Answer with 4xx or 5xx and tell the journal; end the session after too many permanent ones."""
        self.write(reply.encode(self.id))
        journal.refused(self.server.deps, self, reply, recipient)
        if reply.code >= 500:
            self.errors += 1
            if self._table is not None and self.errors >= self.policy.errors_before_disconnect:
                self.goodbye(say.TOO_MANY_ERRORS)

    def goodbye(self, reply: Reply) -> None:
        """Answer and close (RFC 5321 3.8: 421, or the refusal of the connection)."""
        if self.closing:
            return
        self.write(reply.encode(self.id))
        journal.refused(self.server.deps, self, reply, "")
        self.hang_up()

    def out_of_step(self) -> None:
        """Input came where the client had to wait for a reply: whose commands the rest are is unknown."""
        self.refuse(say.PIPELINING)
        self.goodbye(say.OUT_OF_STEP)

    def failed(self) -> None:
        self.goodbye(say.INTERNAL)

    # -- lines

    def line_received(self, line: bytes) -> None:
        if b"\r" in line or b"\n" in line or b"\0" in line:
            self.bare_newline()
            return
        if self.dialogue is not None:
            self._continue_dialogue(self.dialogue, line)
            return
        verb, _, argument = line.partition(b" ")
        command = COMMANDS.get(verb) or COMMANDS.get(verb.upper())
        if command is None:
            self._unknown(verb.upper())
            return
        if command is not QUIT:
            if self.server.draining or self.revoked:
                self.goodbye(say.DRAINING if self.server.draining else say.RIGHT_REVOKED)
                return
            if self._ran_ahead or (self._place < len(self._buffer) and (command.alone or not self.extended)):
                self.out_of_step()
                return
        if len(line) + 2 > command.limit:
            self.refuse(say.LINE_TOO_LONG)
            return
        try:
            command.function(self, argument.strip(b" "))
        except CommandError as error:
            self.refuse(error.reply)

    def _continue_dialogue(self, dialogue: Callable[[bytes], None], line: bytes) -> None:
        self.dialogue = None
        if len(line) + 2 > MAX_AUTH_LINE:
            self.refuse(say.LINE_TOO_LONG)
            return
        dialogue(line)

    def _unknown(self, verb: bytes) -> None:
        self.refuse(say.WRONG_PROTOCOL if verb in FOREIGN_VERBS else say.UNKNOWN_COMMAND)
        if verb in FOREIGN_VERBS:
            self.hang_up()  # a browser was led here: what follows is not for us (cross-protocol attack)

    def line_too_long(self) -> None:
        self.dialogue = None
        self.refuse(say.LINE_TOO_LONG)

    def bare_newline(self) -> None:
        # No later byte can be trusted to be what its sender meant.
        self.refuse(say.BARE_NEWLINE)
        self.hang_up()

    # -- content

    def begin_content(self, transaction: Transaction, reserved: int) -> None:
        """Answer DATA; `reserved` bytes of the server's memory belong to the body from now on."""
        policy = transaction.policy
        self.body = ReceivedBody(self.server.memory, self.server.spool, reserved, self.room)
        self.reader = DataReader(
            transaction.size_limit, policy.header_bytes, normalize=self.normalizes(transaction.table)
        )
        self._restart_window(self.loop.time())
        self.write(GO_AHEAD)

    def content_received(self, piece: bytes) -> bool:
        reader, body = self.reader, self.body
        assert reader is not None and body is not None  # noqa: PT018 - set together in begin_content
        if reader.fault is not None:
            body.close()  # read on without keeping it
        elif piece:
            body.add(piece)
        if reader.finished:
            self.reader = None
            self._ran_ahead = bool(reader.rest) and not self.extended
            self.work(self._end_of_content, reader, body)
            return True
        return not body.behind

    async def _end_of_content(self, reader: DataReader, body: ReceivedBody) -> None:
        transaction = self.transaction
        assert transaction is not None
        self._accepting = True
        try:
            reply: Reply | str | None = content_check.evaluate(reader, transaction.policy.max_received)
            if reply is None:
                reply = await self.server.acceptor.accept(
                    transaction,
                    body,
                    self._client(),
                    extended=self.extended,
                    eight_bit=reader.eight_bit,
                )
        finally:
            self._accepting = False
            self.body = None
            body.close()
        if isinstance(reply, str):
            self.write(b"250 2.0.0 Ok: queued as %b\r\n" % reply.encode())
        else:
            self.refuse(reply)
        self.end_transaction()

    def _client(self) -> Client:
        return Client(
            address=self.client,
            port=self.client_port,
            helo=self.helo,
            tls=self.tls,
            login="" if self.account is None else self.account.name,
            listener=self.listener.name,
        )

    # -- time, and the server's wishes

    def watch(self, now: float) -> None:
        """Called about once a second with the loop's time."""
        if now >= self.deadline:
            if self.closing:
                self.abort()
            else:
                self.goodbye(say.IDLE)
        elif self.reader is not None and not self.closing:
            self._watch_rate(now)

    def _watch_rate(self, now: float) -> None:
        if self.deadline == NEVER:
            self._restart_window(now)  # it is we who are slow
            return
        elapsed = now - self._window_start
        if elapsed < RATE_WINDOW:
            return
        if self.content_bytes - self._window_bytes < elapsed * self.server.minimum_rate:
            self.goodbye(say.TOO_SLOW)
        else:
            self._restart_window(now)

    def _restart_window(self, now: float) -> None:
        self._window_start, self._window_bytes = now, self.content_bytes

    def waiting(self) -> None:
        """Nothing of this session is under way, so a server that shuts down ends it here."""
        if self.server.draining and self.transaction is None and self.dialogue is None:
            self.goodbye(say.DRAINING)

    def drain(self) -> None:
        """The server shuts down: end now when nothing is under way, else at the next command."""
        if self._task is None and not self.closing and not self.pending:
            self.waiting()

    def configuration_changed(self, tables: Tables, table: ListenerTable | None) -> None:
        """A right that the new configuration does not give ends with the next command."""
        if self.account is not None and (
            table is None
            or not table.policy.auth_enabled
            or table.policy.auth_directory != self.policy.auth_directory
        ):
            self.revoked = True
        elif self.transaction is not None:
            self.revoked = self.revoked or any(
                table is None or relay_right(facts, tables, table) is None for facts in self.transaction.relaying
            )


def _plain_address(address: str) -> str:
    """The peer's address; IPv4 in IPv6 (RFC 4291 2.5.5.2) as IPv4, and no zone (RFC 4007 11)."""
    if ":" not in address:
        return address
    return address.split("%", 1)[0].removeprefix("::ffff:") if "." in address else address.split("%", 1)[0]
