"""All that the edge asks outside, gone wrong in every way: the declared onError in time, and others go on.

docs/outside.md holds the same table; a row that is missing there, or says something else, fails.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from gatepost.backends.directory_ldap import LdapDirectory
from gatepost.backends.resolver_dns import DnsResolver
from gatepost.backends.scanners import RealScanners
from gatepost.core.checks.authentication import AuthenticationPolicy, DkimActions, SpfActions
from gatepost.core.checks.dnsbl import DnsblList, DnsblPolicy
from gatepost.core.checks.reverse_dns import Require, ReverseDns
from gatepost.core.checks.scanners import ScannerPolicy
from gatepost.core.configuration_content import ContentPolicy
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.manifest.settings import DnsSettings, LdapSettings
from gatepost.core.ports.directory import DirectoryUnavailable
from gatepost.core.ports.scanner import ScannerAddress, ScannerKind
from testbed import ports
from testbed.accepting import accept_no_more
from testbed.dns import FakeDns

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

pytestmark = pytest.mark.servers

PAGE = Path(__file__).resolve().parent.parent.parent / "docs/outside.md"
LIMIT = 0.5  # s that each dependency has here
# s within which a client has its answer: the limit, and what a busy test machine adds.
IN_TIME = 10.0
# s within which another client's message is taken meanwhile: 2 s on a quiet machine.
MEANWHILE = 4.0

SIGNATURE = "DKIM-Signature: v=1; a=rsa-sha256; d={domain}; s=k; h=from; bh=ZnVzcw==; b=ZnVzcw==\r\n"


class Row(NamedTuple):
    """Where a fault shows and what the client hears there."""

    asked: str
    fault: str
    reply: str


# -- DNS: fault -> what the test server does for the name

DNS_FAULTS: dict[str, str | float] = {
    "no answer": "drop",
    "SERVFAIL": "servfail",
    "REFUSED": "refused",
    "too slow": LIMIT * 4,
    "wrong id": "wrongid",
    "truncated, and nothing by TCP": "tcdrop",
    "names that point to themselves": "garbage",
}
DNS_ASKED = ("DNS list", "PTR", "SPF", "DKIM key")
DNS_REPLIES = {"DNS list": "451 4.7.1", "PTR": "451 4.4.3", "SPF": "451 4.7.24", "DKIM key": "451 4.7.5"}
# Not faults of the DNS's transport, but records that lie.
DNS_LIES = (
    Row("DNS list", "aliases in a circle", "451 4.7.1"),
    Row("PTR", "aliases in a circle", "451 4.4.3"),
    Row("SPF", "aliases in a circle", "451 4.7.24"),
    Row("DKIM key", "aliases in a circle", "451 4.7.5"),
    Row("SPF", "60 KB in one TXT record", "250"),
    Row("DKIM key", "60 KB in one TXT record", "250"),
)
DNS_ROWS = (*(Row(asked, fault, DNS_REPLIES[asked]) for asked in DNS_ASKED for fault in DNS_FAULTS), *DNS_LIES)

# -- servers behind TCP: what they do with a connection

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HTTP_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def says(answer: bytes, *, after: bytes = b"", forever: bytes = b"", every: float = 0.0) -> Behaviour:
    """Answers when `after` has come, then closes; or goes on with `forever`, each after `every` seconds."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if after:
            await reader.readuntil(after)
        writer.write(answer)
        while forever:
            writer.write(forever)
            await writer.drain()
            await asyncio.sleep(every)
        await writer.drain()

    return behave


class Hasty(NamedTuple):
    """Answers before anything has come, and waits until its client hangs up on that."""

    answer: bytes

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.answer)
        await reader.read()


CLAMD: dict[str, Behaviour | None] = {
    "refused": None,
    "hung": silent,
    "garbage": says(b"\xff\xfe\x00\xff" * 100),
    "an endless reply": says(b"stream: ", forever=b"x" * 10_000),
    "half a reply": says(b"stream: O", after=bytes(4)),
    "slow, byte by byte": says(b"", forever=b"s", every=0.1),
    "OK before the message": Hasty(b"stream: OK\0"),
}
CHUNKS_END = b"0\r\n\r\n"
RSPAMD: dict[str, Behaviour | None] = {
    "refused": None,
    "hung": silent,
    "garbage": says(b"\xff\xfe\x00\xff" * 100),
    "an endless header": says(b"HTTP/1.1 200 OK\r\n", forever=b"X-A: " + b"y" * 1000 + b"\r\n"),
    "an endless reply": says(HTTP_OK + b"\r\n", after=CHUNKS_END, forever=b"[" * 10_000),
    "half a reply": says(HTTP_OK + b'Content-Length: 100\r\n\r\n{"action": "no ac', after=CHUNKS_END),
    "slow, byte by byte": says(HTTP_OK + b"\r\n", after=CHUNKS_END, forever=b" ", every=0.1),
    "HTTP 500": says(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", after=CHUNKS_END),
    "a redirection": says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", after=CHUNKS_END),
    "no JSON": says(HTTP_OK + b"Content-Length: 2\r\n\r\nhi", after=CHUNKS_END),
    "no action": says(HTTP_OK + b"Content-Length: 2\r\n\r\n{}", after=CHUNKS_END),
    "JSON without a bottom": says(
        HTTP_OK + b'Content-Length: 90005\r\n\r\n{"x":' + b"[" * 90_000, after=CHUNKS_END
    ),
    "a result before the message": Hasty(HTTP_OK + b'Content-Length: 22\r\n\r\n{"action":"no action"}'),
}
LDAP: dict[str, Behaviour | None] = {
    "refused": None,
    "hung": silent,
    "garbage": says(b"\xff\xfe\x00\xff" * 100),
    "half a reply": says(b"\x30\x0c\x02\x01\x01\x61", after=b"\x60"),
    "a reply of 2 GB": says(b"\x30\x84\x7f\xff\xff\xff", forever=b"\0" * 10_000, every=0.01),
    "slow, byte by byte": says(b"\x30\x84\0\1\0\0", forever=b"\0", every=0.1),
    "another reply": says(b"\x30\x0c\x02\x01\x63\x65\x07\x0a\x01\x00\x04\x00\x04\x00", after=b"\x60"),
}
TCP_ROWS = (
    *(Row("clamd", fault, "451 4.7.1") for fault in CLAMD),
    *(Row("rspamd", fault, "451 4.7.1") for fault in RSPAMD),
    *(Row("LDAP", fault, "451 4.4.3") for fault in LDAP),
)


class Liars:
    """Fake servers on ports of 127.0.0.1, and ports on which nobody listens."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._servers: list[asyncio.Server] = []
        self._served: Counter[int] = Counter()
        self._ended = asyncio.Condition()
        self._tasks: set[asyncio.Task[Any]] = set()
        stack.push_async_callback(self._end)

    async def start(self, behaviour: Behaviour | None) -> int:
        if behaviour is None:
            port = ports.reserve()
            self._stack.callback(ports.release, port)
            return port

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError, EOFError, asyncio.LimitOverrunError):
                await behaviour(reader, writer)
            async with self._ended:
                self._served[port] += 1
                self._ended.notify_all()

        def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # Not a coroutine: one that was taken in the last moment would be open for good if it were never begun.
            task = asyncio.create_task(serve(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: writer.close())

        server = await asyncio.start_server(taken, "127.0.0.1", 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def served(self, port: int, clients: int) -> None:
        """Wait until so many connections have ended."""
        async with self._ended:
            await self._ended.wait_for(lambda: self._served[port] >= clients)

    async def _end(self) -> None:
        for server in self._servers:
            await accept_no_more(server.sockets)
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


async def answer(
    client: Client,
    sender: str,
    recipient: str,
    message: str,
    before_dot: Callable[[], Awaitable[None]] | None = None,
) -> str:
    """Send a message: the first refusal, or the reply to its end."""
    async with asyncio.timeout(IN_TIME):
        for command in (f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>", "DATA"):
            reply = await client.ask(command)
            if reply[0] not in "23":
                return reply
        client.send(f"{message}\r\nhello\r\n")
        if before_dot is not None:
            await before_dot()
        client.send(".\r\n")
        return await client.reply()


async def others_go_on(send: Callable[[], Awaitable[str]], under_way: asyncio.Task[list[str]]) -> None:
    """While the faulty ones wait for their limits, another message is taken."""
    await asyncio.sleep(LIMIT / 5)
    assert not under_way.done()
    async with asyncio.timeout(MEANWHILE):
        assert (await send()).startswith("250")


def judge(rows: tuple[Row, ...], replies: list[str]) -> None:
    wrong = [(row, reply) for row, reply in zip(rows, replies, strict=True) if not reply.startswith(row.reply)]
    assert wrong == []


# -- DNS


def names_of(row: Row, number: int) -> str:
    """The name that is asked for in this row: each client has an address and a domain of its own."""
    return {
        "DNS list": f"{number}.2.0.192.bl.test",
        "PTR": f"{number}.2.0.192.in-addr.arpa",
        "SPF": f"f{number}.test",
        "DKIM key": f"k._domainkey.f{number}.test",
    }[row.asked]


def zone() -> str:
    long = " ".join(['"' + "x" * 250 + '"'] * 240)
    lines = ["*.2.0.192.in-addr.arpa. 60 IN PTR host.example.", "host.example. 60 IN A 192.0.2.1"]
    for number, row in enumerate(DNS_ROWS, 1):
        name = names_of(row, number)
        if row.fault == "aliases in a circle":
            lines += [f"{name}. 60 IN CNAME c{number}.circle.test.", f"c{number}.circle.test. 60 IN CNAME {name}."]
        elif "TXT" in row.fault:
            lines.append(f"{name}. 60 IN TXT {long}")
        elif row.asked == "PTR":
            lines.append(f"{name}. 60 IN PTR host.example.")
    return "\n".join(lines) + "\n"


async def test_dns_in_trouble(make_edge: MakeEdge, stack: AsyncExitStack) -> None:
    """Lists, PTR, SPF and DKIM keys, each with a server that is silent, slow, broken or lies; all at once.

    Fails when any of them is taken for an answer, takes longer than its limit, or holds up another client.
    """
    behave = {
        names_of(row, number): DNS_FAULTS[row.fault]
        for number, row in enumerate(DNS_ROWS, 1)
        if row.fault in DNS_FAULTS
    }
    dns = stack.enter_context(FakeDns(zone(), behave))
    resolver = DnsResolver(DnsSettings(servers=(f"127.0.0.1:{dns.port}",), timeout=f"{LIMIT * 1000:.0f}ms"))
    await resolver.start()
    stack.push_async_callback(resolver.close)
    edge = await make_edge(
        resolver=resolver,
        proxies=("127.0.0.1/32",),
        dnsbl=DnsblPolicy((DnsblList("bl.test", on_error=OnError.TEMPFAIL),), deadline=LIMIT),
        reverse_dns=ReverseDns(Require.PTR, Action.REJECT, OnError.TEMPFAIL),
        authentication=AuthenticationPolicy(
            SpfActions(temp_error=OnError.TEMPFAIL), DkimActions(temp_error=OnError.TEMPFAIL), deadline=LIMIT * 2
        ),
    )

    async def send(number: int) -> str:
        client = await edge.connect()
        client.send(f"PROXY TCP4 192.0.2.{number} 203.0.113.25 {number + 1000} 25\r\n")
        domain = f"f{number}.test"
        await client.hello()
        header = SIGNATURE.format(domain=domain) + f"From: <a@{domain}>\r\n"
        return await answer(client, f"a@{domain}", "bob@example.test", header)

    all_of_them = asyncio.ensure_future(asyncio.gather(*(send(number) for number in range(1, len(DNS_ROWS) + 1))))
    await others_go_on(lambda: send(200), all_of_them)
    judge(DNS_ROWS, await all_of_them)


# -- clamd and rspamd


@pytest.mark.parametrize("kind", list(ScannerKind))
async def test_a_scanner_in_trouble(make_edge: MakeEdge, stack: AsyncExitStack, kind: ScannerKind) -> None:
    """Each fault with Tempfail gives 451 in time, with Accept 250; a client without that scanner goes on.

    Fails when a fault counts as a clean result, when an endless reply is read on, or a redirection is followed.
    """
    faults = CLAMD if kind is ScannerKind.CLAMD else RSPAMD
    scheme = "tcp" if kind is ScannerKind.CLAMD else "http"
    liars, real = Liars(stack), RealScanners()
    stack.push_async_callback(real.close)
    edges: list[Edge] = []
    waits: list[Callable[[], Awaitable[None]] | None] = []
    for behaviour in faults.values():
        port = await liars.start(behaviour)
        where = ScannerAddress(kind, f"{scheme}://127.0.0.1:{port}")
        for on_error in (OnError.TEMPFAIL, OnError.ACCEPT):
            policy = ContentPolicy(scanners=(ScannerPolicy(where, LIMIT, on_error),))
            edges.append(await make_edge(scanners=real, content=policy))
            # A message that ends before that answer is read would be a whole one.
            waits.append(partial(liars.served, port, 2) if isinstance(behaviour, Hasty) else None)
    other = await make_edge(scanners=real)

    async def send(edge: Edge, before_dot: Callable[[], Awaitable[None]] | None = None) -> str:
        client = await edge.client()
        return await answer(client, "a@x.example", "bob@example.test", "Subject: x\r\n", before_dot)

    all_of_them = asyncio.ensure_future(asyncio.gather(*map(send, edges, waits)))
    await others_go_on(lambda: send(other), all_of_them)
    replies = await all_of_them
    rows = tuple(row for row in TCP_ROWS if row.asked == kind.value.lower())
    judge(rows, replies[::2])
    assert {reply[:3] for reply in replies[1::2]} == {"250"}


# -- LDAP


async def test_a_directory_in_trouble(make_edge: MakeEdge, stack: AsyncExitStack) -> None:
    """A recipient that cannot be looked up gets 451 in time, never 550; recipients of another directory go on.

    Fails when a half or foreign reply is an answer, or when reading byte by byte knows no end.
    """
    liars, directories, domains = Liars(stack), {}, []
    for number, behaviour in enumerate(LDAP.values()):
        url = f"ldap://127.0.0.1:{await liars.start(behaviour)}"
        directory = LdapDirectory(LdapSettings((url,), "dc=example", timeout=f"{LIMIT * 1000:.0f}ms"))
        with suppress(DirectoryUnavailable):
            await directory.start()
        stack.push_async_callback(directory.close)
        directories[f"ldap{number}"] = directory
        domains.append(make_edge.domain(f"d{number}.test", directory=f"ldap{number}"))
    static = make_edge.domain(source_kind="Static", directory="", static=("bob@example.test",))
    edge = await make_edge(directories=directories, domains=(static, *domains))

    async def send(recipient: str) -> str:
        return await answer(await edge.client(), "a@x.example", recipient, "Subject: x\r\n")

    rows = tuple(row for row in TCP_ROWS if row.asked == "LDAP")
    all_of_them = asyncio.ensure_future(asyncio.gather(*(send(f"x@d{number}.test") for number in range(len(rows)))))
    await others_go_on(lambda: send("bob@example.test"), all_of_them)
    judge(rows, await all_of_them)


def test_the_page_has_every_row() -> None:
    page = PAGE.read_text("utf-8")
    missing = [row for row in (*DNS_ROWS, *TCP_ROWS) if f"| {row.asked} | {row.fault} | {row.reply} |" not in page]
    assert missing == []
