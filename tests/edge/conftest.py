"""An edge on 127.0.0.1 with a log in memory and a directory in a dict, and a client that speaks in bytes."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from gatepost.backends.content_log import ContentLog
from gatepost.backends.log_memory import MemoryLog
from gatepost.backends.resolver_table import TableResolver
from gatepost.backends.state_log import LogState
from gatepost.core.address import Address
from gatepost.core.configuration import (
    Beside,
    Configuration,
    DeliveryPlan,
    DomainConfig,
    ListenerPolicy,
)
from gatepost.core.configuration_layers import Overlay
from gatepost.core.envelope import ENVELOPE_HEADER, Envelope, decode_envelope
from gatepost.core.manifest.settings import (
    LimitSettings,
    ListenerSettings,
    ListenerTls,
    LogSettings,
    ProxyProtocol,
    Role,
    Settings,
    SqliteSettings,
    Xclient,
)
from gatepost.core.ports.access_tables import AccessTables
from gatepost.core.ports.call_ahead import CallAhead
from gatepost.core.ports.directory import (
    Account,
    Directory,
    DirectoryUnavailable,
    Entry,
    EntryKind,
    Login,
    LoginVerdict,
)
from gatepost.core.ports.events import Event
from gatepost.core.ports.log import Record
from gatepost.core.ports.resolver import Resolver
from gatepost.core.ports.scanner import Scanners
from gatepost.core.state_kinds import KINDS
from gatepost.core.tables import Tables
from gatepost.core.topics import Topics
from gatepost.edge.server import EdgeDependencies, EdgeServer
from gatepost.telemetry.tracing import Tracer
from testbed.accepting import accept_no_more
from testbed.tls import Authority, Certificate

HOSTNAME = "mx.example.test"
NOW_MS = 1_790_000_000_000
LISTENER = "mx"
# No test waits so long; it only ends one that would hang.
PATIENCE = 20.0


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the edge runs on in production."""
    return {"uvloop": uvloop.new_event_loop}


class DictDirectory:
    """A directory in a dict. `away` makes it unavailable; `gate`, when set, holds every answer until it is set."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.passwords: dict[str, str] = {}
        self.away = False
        self.gate: asyncio.Event | None = None
        self.asked = asyncio.Event()

    def add(self, *addresses: str, password: str = "", **facts: Any) -> None:
        name = addresses[0].split("@", 1)[0]
        self.entries.update(
            {address: Entry(name, EntryKind.ACCOUNT, addresses[0], addresses, **facts) for address in addresses}
        )
        if password:
            self.passwords[name] = password

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def _answer(self) -> None:
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise DirectoryUnavailable("away")

    async def lookup(self, address: Address) -> Entry | None:
        await self._answer()
        return self.entries.get(address.key)

    async def expand(self, group: Entry) -> Sequence[Entry]:
        return ()

    async def account(self, login: str) -> Account | None:
        await self._answer()
        entry = self._named(login)
        password = "" if entry is None else self.passwords.get(entry.name, "")
        return None if entry is None else Account(entry, clear=(password,) if password else ())

    def _named(self, login: str) -> Entry | None:
        return next((entry for entry in self.entries.values() if login in (entry.name, *entry.addresses)), None)

    async def authenticate(self, login: str, password: str) -> Login:
        await self._answer()
        entry = self._named(login)
        if entry is None or not password or self.passwords.get(entry.name) != password:
            return Login(LoginVerdict.REFUSED)
        if not entry.login_enabled:
            return Login(LoginVerdict.LOGIN_DISABLED)
        return Login(LoginVerdict.ACCEPTED, entry)


class ListEvents:
    def __init__(self) -> None:
        self.all: list[Event] = []

    def emit(self, event: Event) -> None:
        self.all.append(event)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.all]


class Client:
    """An SMTP client that says and reads exactly what a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes | str) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)

    async def reply(self) -> str:
        """The next reply, all of its lines, with CR LF between them."""
        lines = []
        while True:
            line = await self.line()
            lines.append(line)
            if line[3:4] != "-":
                return "\r\n".join(lines)

    async def line(self) -> str:
        async with asyncio.timeout(PATIENCE):
            return (await self.reader.readuntil(b"\r\n"))[:-2].decode()

    async def ask(self, command: str | bytes) -> str:
        """Send one line and return its reply."""
        self.send(command)
        self.send(b"\r\n")
        return await self.reply()

    async def code(self, command: str | bytes) -> int:
        return int((await self.ask(command))[:3])

    async def hello(self) -> Client:
        """Read the greeting and say EHLO."""
        assert (await self.reply()).startswith("220 ")
        assert (await self.ask("EHLO client.example.org")).startswith("250")
        return self

    async def begin(self, *recipients: str, sender: str = "alice@example.org", parameters: str = "") -> Client:
        """MAIL, RCPT for each and DATA, up to 354."""
        assert (await self.ask(f"MAIL FROM:<{sender}>{parameters}")).startswith("250")
        for recipient in recipients or ("bob@example.test",):
            assert (await self.ask(f"RCPT TO:<{recipient}>")).startswith("250")
        assert (await self.ask("DATA")).startswith("354")
        return self

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.writer.start_tls(context, server_hostname=HOSTNAME)

    def reset(self) -> None:
        """Break the connection, as a crash or a firewall does."""
        with socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno())) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        try:
            async with asyncio.timeout(PATIENCE):
                await self.writer.wait_closed()
        except OSError:
            pass


@dataclass
class Edge:
    """A running edge with everything a test looks at."""

    server: EdgeServer
    log: MemoryLog
    directory: DictDirectory
    events: ListEvents
    configuration: Configuration
    authority: Authority | None = None
    clients: list[Client] = field(default_factory=list)
    domains: tuple[DomainConfig, ...] = ()
    state: LogState | None = None
    resolver: TableResolver = field(default_factory=TableResolver)

    @property
    def port(self) -> int:
        return self.server.port(LISTENER)

    def listening(self) -> list[Any]:
        """The sockets that a server of asyncio's accepts on; a doorway begins by itself what it has accepted."""
        servers = self.server._sockets.values()
        return [sock for server in servers if isinstance(server, asyncio.Server) for sock in server.sockets]

    async def connect(self, **tls: Any) -> Client:
        async with asyncio.timeout(PATIENCE):
            client = Client(*await asyncio.open_connection("127.0.0.1", self.port, **tls))
        self.clients.append(client)
        return client

    async def client(self) -> Client:
        """A client that has said EHLO."""
        return await (await self.connect()).hello()

    def records(self) -> Sequence[Record]:
        return self.log.records("accepted")

    def messages(self) -> list[tuple[Envelope, bytes]]:
        found = []
        for record in self.records():
            header = record.header(ENVELOPE_HEADER)
            assert header is not None
            found.append((decode_envelope(header), record.value))
        return found

    def configure(self, **policy: Any) -> None:
        """Put a changed listener policy in force."""
        old = self.configuration.listeners[0]
        self.configuration = msgspec.structs.replace(
            self.configuration, listeners=(msgspec.structs.replace(old, **policy),)
        )
        self.server.on_configuration(Tables(self.configuration))

    def lay(self, *overlays: Overlay, beside: tuple[Beside, ...] = ()) -> None:
        """Put domains' policies in force, over the listener's, and policies beside that one."""
        known = {domain.domain for domain in self.configuration.domains}
        names = sorted({name for overlay in overlays for name in overlay.domains} - known)
        served = tuple(domain(name, source_kind="Any") for name in names)
        self.configuration = msgspec.structs.replace(
            self.configuration, domains=self.configuration.domains + served, overlays=overlays, beside=beside
        )
        self.server.on_configuration(Tables(self.configuration))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until something holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.001)


def domain(name: str = "example.test", **facts: Any) -> DomainConfig:
    return DomainConfig(
        **{
            "domain": name,
            "origin": f"MailDomain/default/{name}",
            "generation": 1,
            "source_kind": "Directory",
            "directory": "people",
            "delivery": DeliveryPlan("Mailbox"),
            "default": name == "example.test",
            "separators": ("+",),
            "role_addresses": {"postmaster": f"bob@{name}", "abuse": f"bob@{name}"},
            **facts,
        }
    )


class MakeEdge:
    """Starts edges and stops them when the test ends."""

    def __init__(self, folder: Path, certificate: Callable[[], tuple[Authority, Certificate]]) -> None:
        self._folder, self._certificate = folder, certificate
        self._edges: list[Edge] = []

    domain = staticmethod(domain)

    async def __call__(
        self,
        *,
        role: Role = Role.MX,
        tls: bool = False,
        implicit: bool = False,
        limits: LimitSettings | None = None,
        domains: tuple[DomainConfig, ...] | None = None,
        append_timeout: str = "8s",
        configured: bool = True,
        tracer: Tracer | None = None,
        log: MemoryLog | None = None,
        port: int = 0,
        proxies: tuple[str, ...] = (),
        xclient: tuple[str, ...] = (),
        files: ListenerTls | None = None,
        resolver: Resolver | None = None,
        access_tables: AccessTables | None = None,
        call_ahead: CallAhead | None = None,
        scanners: Scanners | None = None,
        directories: dict[str, Directory] | None = None,
        **policy: Any,
    ) -> Edge:
        authority, issued = self._certificate() if tls or implicit else (None, None)
        if issued is not None and files is None:
            files = ListenerTls(str(issued.certificate), str(issued.key), implicit)
        listener = ListenerSettings(
            LISTENER,
            f"127.0.0.1:{port}",
            role,
            files or ListenerTls(),
            ProxyProtocol(proxies),
            Xclient(xclient),
        )
        settings = Settings(
            hostname=HOSTNAME,
            log=LogSettings(sqlite=SqliteSettings(), append_timeout=append_timeout),
            listeners=(listener,),
            limits=limits or LimitSettings(),
        )
        log = log or MemoryLog()
        await log.start()
        topics = Topics()
        await log.ensure_topics(topics.specs((), 1))
        state = LogState(log, topics.state, KINDS, lambda: NOW_MS)
        await state.start()
        directory, events, names = DictDirectory(), ListEvents(), TableResolver()
        directory.add("bob@example.test", password="secret-b")
        directory.add("alice@example.test", "sales@example.test", password="secret-a")
        directory.add("gone@example.test", enabled=False)
        directory.add("full@example.test", quota_bytes=10, quota_used_bytes=10)
        directory.add("nologin@example.test", login_enabled=False, password="secret-n")
        server = EdgeServer(
            EdgeDependencies(
                log=log,
                content=ContentLog(log, topics.content_transit),
                state=state,
                directories=directories or {"people": directory},
                resolver=resolver or names,
                events=events,
                tracer=tracer or Tracer("edge"),
                topics=topics,
                settings=settings,
                now_ms=lambda: NOW_MS,
                access=access_tables,
                call_ahead=call_ahead,
                scanners=scanners,
            )
        )
        configuration = Configuration(
            1,
            domains if domains is not None else (domain(),),
            (ListenerPolicy(LISTENER, **policy),),
        )
        edge = Edge(server, log, directory, events, configuration, authority, state=state, resolver=names)
        if configured:
            server.on_configuration(Tables(configuration))
        await server.start()
        self._edges.append(edge)
        return edge

    async def stop(self) -> None:
        for edge in self._edges:
            for client in edge.clients:
                await client.close()
            await accept_no_more(edge.listening())
            await edge.server.close()
            if edge.state is not None:
                await edge.state.close()
        for edge in self._edges:
            await edge.log.close()
            assert not edge.server.sessions, "a session was forgotten"
            assert edge.server.memory.reserved == 0, "memory was not given back"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], tuple[Authority, Certificate]]:
    """Makes the test CA and the server's certificate at the first use."""
    made: list[tuple[Authority, Certificate]] = []

    def make() -> tuple[Authority, Certificate]:
        if not made:
            authority = Authority(tmp_path_factory.mktemp("ca"))
            made.append((authority, authority.issue(HOSTNAME)))
        return made[0]

    return make


@pytest.fixture
async def make_edge(
    tmp_path: Path, certificate: Callable[[], tuple[Authority, Certificate]]
) -> AsyncIterator[MakeEdge]:
    maker = MakeEdge(tmp_path, certificate)
    yield maker
    await maker.stop()


@pytest.fixture
async def edge(make_edge: MakeEdge) -> Edge:
    """An edge of role mx with the default policy; example.test is served, with bob and alice."""
    return await make_edge()
