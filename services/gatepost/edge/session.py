"""The SMTP session: its state, what is refused whatever the command says, and the way from DATA to 250.

What each command does stands in commands/, one file per step of RFC 5321 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gatepost.core import smtp_replies as say
from gatepost.core.configuration import ListenerPolicy
from gatepost.core.configuration_tls import ClientCertificate
from gatepost.core.data_reader import DataReader
from gatepost.core.envelope import Client
from gatepost.core.ids import new_id
from gatepost.core.manifest.relay_policy import BareNewline, TlsMode
from gatepost.core.ports.directory import Entry as Account
from gatepost.core.received import address_literal
from gatepost.core.relay_right import relay_right
from gatepost.core.reply import Reply
from gatepost.core.smtp_commands import MAX_AUTH_LINE, CommandError
from gatepost.core.tables import ListenerTable, Tables
from gatepost.edge import access, client_verdicts, journal, tarpit
from gatepost.edge.admission import greet_later, greeting_delay, limit_of, refusal_of
from gatepost.edge.command_table import COMMANDS, FOREIGN_VERBS, QUIT
from gatepost.edge.commands.bdat import Dropped
from gatepost.edge.content import Incoming
from gatepost.edge.listener import Listener
from gatepost.edge.peer import Arrival, client_certificate, plain_address
from gatepost.edge.transaction import Transaction
from gatepost.edge.wire import Wire
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from gatepost.edge.server import EdgeServer

GO_AHEAD: Final = b"354 End data with <CR><LF>.<CR><LF>\r\n"
# 4xx answers between two messages. A list's server may well name 1,000 recipients at once and hear 452 for most of
# them (RFC 5321 4.5.3.1.10); Postfix's smtpd_recipient_overshoot_limit is as high.
MOST_DEFERRALS: Final = 1000


class Session(Wire):
    """One client. `account` is set by AUTH, `helo` by EHLO or HELO; `table` is the policy it was last met with."""

    def __init__(self, server: EdgeServer, listener: Listener, arrival: Arrival | None = None) -> None:
        super().__init__(server.loop)
        self.server = server
        self.listener = listener
        self.arrival = arrival
        self.client = ""
        self.client_port = 0
        self.peer = ""
        self.helo = ""
        self.extended = False
        self.tls = ""
        self.account: Account | None = None
        self.auth_failures = 0
        self.errors = 0
        self.deferrals = 0
        self.junk = 0
        self.recipients_named = 0
        self.transaction: Transaction | None = None
        self.incoming: Incoming | Dropped | None = None
        self.certificate: ClientCertificate | None = None
        self.client_name = ""
        self.dialogue: Callable[[bytes], None] | None = None
        self.revoked = False
        self.verdicts: client_verdicts.ClientVerdicts | None = None
        self._table: ListenerTable | None = None
        self._id = ""
        self._entered = False
        self._network = ""
        self._accepting = False
        self._ran_ahead = False

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
        if self.arrival is not None:
            return self.server.own_names | {address_literal(self.arrival.server)}
        name = self.transport.get_extra_info("sockname")
        literals = {address_literal(plain_address(name[0]))} if name else set()
        return self.server.own_names | literals

    def refresh_policy(self) -> bool:
        """Take over the policy now in force; False when there is none any more (the session is ended then)."""
        table = self.listener.table_for(self.client)
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
        if table.client_checks is not None or self.verdicts is not None:
            client_verdicts.begin(self, table)

    @property
    def needs_tls(self) -> bool:
        """Whether the policy wants encryption of this client and there is none."""
        if self.tls:
            return False
        required = self.table.tls_required
        return self.policy.tls_mode is TlsMode.REQUIRE or (bool(required) and self.client in required)

    def normalizes(self, table: ListenerTable) -> bool:
        """Whether bare CR and LF of this client are taken for line ends."""
        return table.policy.bare_newline is BareNewline.NORMALIZE or (
            bool(table.normalize) and self.client in table.normalize
        )

    # -- opening and closing

    def opened(self) -> None:
        if self.arrival is not None:
            self.client, self.client_port = self.arrival.client, self.arrival.client_port
        elif peer := self.transport.get_extra_info("peername"):
            self.client, self.client_port = plain_address(peer[0]), peer[1]
        else:
            self.abort()  # reset before it was accepted
            return
        self.peer = self.client
        self.server.remember(self)
        implicit = self.transport.get_extra_info("ssl_object")
        if implicit is not None:
            self.encrypted(implicit)
        refusal = refusal_of(self)
        if refusal is not None:
            self.goodbye(refusal)
            return
        table = self.listener.table_for(self.client)
        assert table is not None
        self._use(table)
        self._entered = True
        self._network = self.listener.enter(self.client)
        metrics.SESSIONS.add(self.listener.name)
        metrics.SESSIONS_OPEN.add(1, self.listener.name)
        self.deadline = self.loop.time() + self.idle_timeout
        delay = greeting_delay(self)
        if delay:
            self.work(greet_later, self, delay)
        else:
            self.write(self.server.greeting)

    @property
    def may_pass_on(self) -> bool:
        """Whether the host that connected may pass on sessions of others (XCLIENT)."""
        return bool(self.listener.xclient) and self.peer in self.listener.xclient

    def become(self, client: str, port: int) -> bool:
        """Go on as this client's session, with none of the rights so far; False: it has too many, as was said."""
        self.end_transaction()
        self.listener.leave(self.client, self._network)
        self.client, self.client_port, self.client_name = client, port, ""
        self.account = self.certificate = None
        refusal = limit_of(self, self.table)
        self._network = self.listener.enter(client)
        if refusal is not None:
            self.goodbye(refusal)
            return False
        self.helo, self.extended = "", False
        self._use(self.table)
        return True

    def encrypted(self, tls_object: object) -> None:
        """TLS is in use from now on."""
        version, cipher = tls_object.version(), tls_object.cipher()  # type: ignore[attr-defined]
        self.tls = f"{version} {cipher[0]}" if cipher else str(version)
        self.certificate = client_certificate(tls_object)
        metrics.TLS_HANDSHAKES.add(self.listener.name, str(version))

    def forgotten(self) -> None:
        self.end_transaction()
        if self.verdicts is not None:
            self.verdicts.close()
        if self._entered:
            self._entered = False
            self.listener.leave(self.client, self._network)
            metrics.SESSIONS_OPEN.add(-1, self.listener.name)
        self.server.forget(self)

    def end_transaction(self) -> None:
        if self.incoming is not None:
            self.incoming.close()
            self.incoming = None
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
            elif self._table is not None:
                tarpit.after_error(self)
        else:
            self.deferrals += 1
            if self.deferrals > MOST_DEFERRALS:
                self.goodbye(say.TOO_MANY_DEFERRALS)

    def goodbye(self, reply: Reply) -> None:
        """Answer and close (RFC 5321 3.8: 421, or the refusal of the connection)."""
        if self.closing:
            return
        self.write(reply.encode(self.id))
        metrics.SESSIONS_ENDED.add(self.listener.name, reply.check)
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
        if command.junk:
            self.junk += 1
            if self.junk > self.policy.junk_commands:
                self.goodbye(say.TOO_MUCH_JUNK)
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
        self.reader = DataReader(
            transaction.size_limit, transaction.policy.header_bytes, normalize=self.normalizes(transaction.table)
        )
        self.incoming = Incoming(self, transaction, reserved, self.reader)
        self.write(GO_AHEAD)

    def content_received(self, piece: bytes) -> bool:
        incoming = self.incoming
        assert incoming is not None
        incoming.take(piece)
        if incoming.reader.finished:
            self.reader = None
            incoming.ended()
        return self.incoming is not incoming or not incoming.behind

    def end_of_content(self) -> None:
        """All of the message is here."""
        assert isinstance(self.incoming, Incoming)
        self._ran_ahead = bool(self.incoming.reader.rest) and not self.extended
        self.work(self._judge, self.incoming)

    async def _judge(self, incoming: Incoming) -> None:
        try:
            reply: Reply | str | None = await incoming.refusal()
            if reply is None:
                self._accepting = True
                reply = await incoming.accept()
        finally:
            self._accepting = False
            self.incoming = None
            incoming.close()
        if isinstance(reply, str):
            self.junk = self.deferrals = self.recipients_named = 0
            self.write(b"250 2.0.0 Ok: queued as %b\r\n" % reply.encode())
        else:
            self.refuse(reply)
        self.end_transaction()

    def facts(self) -> Client:
        """Who hands a message over."""
        return Client(
            address=self.client,
            port=self.client_port,
            helo=self.helo,
            name=self.client_name,
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
        elif self.reader is not None and not self.closing and self.incoming and self.incoming.pace.too_slow(now):
            self.goodbye(say.TOO_SLOW)

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
                table is None or relay_right(access.again(self, facts), tables, table) is None
                for facts in self.transaction.relaying
            )
