"""`gatepost try`: a session that never was, through the real edge, with the settings' own directories and DNS.

The edge runs in this process on a port of 127.0.0.1 with a log in memory, so nothing is delivered or written. The
client's address is told to it as a load balancer would (PROXY protocol).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import json
import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from gatepost.backends.access_file import read_access_file
from gatepost.backends.config_dir import SETTINGS_FILE, compile_directory
from gatepost.backends.content_log import ContentLog
from gatepost.backends.log_memory import MemoryLog
from gatepost.backends.settings_file import load_settings
from gatepost.backends.state_log import LogState
from gatepost.cli.assembly import Assembly, now_ms
from gatepost.cli.process import unwrapped
from gatepost.core.access.entry import AccessError
from gatepost.core.access.table import AccessTable
from gatepost.core.compile.surroundings import surroundings
from gatepost.core.manifest.read import ManifestError
from gatepost.core.manifest.settings import ListenerSettings, ListenerTls, ProxyProtocol, Settings, Xclient
from gatepost.core.ports.events import Event
from gatepost.core.state_kinds import KINDS
from gatepost.core.tables import Tables
from gatepost.core.topics import Topics
from gatepost.edge.dependencies import EdgeDependencies
from gatepost.edge.server import EdgeServer
from gatepost.telemetry.logging import configure_logging
from gatepost.telemetry.tracing import Tracer

REPLY_LIMIT_S: Final = 90.0  # of an edge that waits for DNS and a directory
EXIT_REFUSED: Final = 1
_HIDDEN: Final = frozenset(
    {"listener", "port", "text", "code", "enhanced", "tls", "login", "from", "helo", "client"}
)

MESSAGE: Final = "From: <{sender}>\nTo: <{recipient}>\nSubject: gatepost try\n\nA message that was never sent.\n"


class Step(msgspec.Struct, frozen=True):
    """A command, what the checks found meanwhile, and the reply."""

    command: str
    checks: tuple[dict[str, str], ...]
    reply: str


class _Recorded:
    """Events are kept, to be shown."""

    def __init__(self) -> None:
        self._new: list[Event] = []

    def emit(self, event: Event) -> None:
        self._new.append(event)

    def take(self) -> tuple[dict[str, str], ...]:
        found = tuple(
            {"event": event.kind, **{k: v for k, v in event.facts.items() if v and k not in _HIDDEN}}
            for event in self._new
        )
        self._new.clear()
        return found


class _TablesNow:
    """core.ports.access_tables.AccessTables, read when they are wanted: nobody waits for a change here."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._tables: dict[str, AccessTable] = {}
        self.faults: list[str] = []

    async def start(self) -> None:
        """Nothing to look after."""

    async def close(self) -> None:
        """Nothing to end."""

    def want(self, tables: Mapping[str, float]) -> None:
        for file in tables:
            try:
                self._tables[file] = read_access_file(self._base / file)
            except AccessError as error:
                self.faults.append(str(error))

    def table(self, file: str) -> AccessTable | None:
        return self._tables.get(file)

    def on_change(self, callback: Callable[[], None]) -> None:
        """They do not change."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--client-ip", required=True, metavar="IP", help="where the client seems to come from")
    parser.add_argument("--helo", required=True, metavar="H")
    parser.add_argument("--from", dest="sender", required=True, metavar="A", help='"" or "<>": the null sender')
    parser.add_argument(
        "--to", dest="recipients", required=True, action="append", metavar="B", help="again for more"
    )
    parser.add_argument("--listener", metavar="L", help="by default the first one of role mx")
    parser.add_argument("--message", type=Path, metavar="FILE", help="without it a short one is made up")
    parser.add_argument("--state", type=Path, metavar="DIR", help="as for gatepost run: where {state} is")
    parser.add_argument("--output", choices=("text", "json"), default="text")


def run(options: argparse.Namespace) -> int:
    directory: Path = options.directory
    settings = load_settings(directory / SETTINGS_FILE, options.state)
    try:
        client = ipaddress.ip_address(options.client_ip)
    except ValueError as error:
        raise ManifestError("--client-ip", "", str(error)) from None
    configure_logging("text", "error", "try")
    listener = _listener(settings, options.listener)
    with unwrapped():
        steps, faults = asyncio.run(_try(directory, settings, listener, client, options))
    refused = any(step.reply[:1] in "45" for step in steps)
    if options.output == "json":
        verdict = {"listener": listener.name, "accepted": not refused, "steps": steps, "faults": faults}
        print(json.dumps(msgspec.to_builtins(verdict), ensure_ascii=False, indent=2))
    else:
        _show(steps, faults, listener.name)
    return EXIT_REFUSED if refused else 0


def _listener(settings: Settings, name: str | None) -> ListenerSettings:
    for listener in settings.listeners:
        if listener.name == name or (name is None and listener.role.value == "mx"):
            return listener
    if name is None and settings.listeners:
        return settings.listeners[0]
    known = ", ".join(listener.name for listener in settings.listeners) or "none"
    raise ManifestError("the settings", "listeners", f"no listener {name!r}; there are: {known}")


def _for_trying(settings: Settings, listener: ListenerSettings) -> tuple[Settings, list[str]]:
    """The settings with only this listener, on a free port, and the client's address believed."""
    notes = []
    tls = listener.tls
    if tls.certificate_file and not (Path(tls.certificate_file).is_file() and Path(tls.key_file).is_file()):
        notes.append(f"{tls.certificate_file} or its key is not there: tried without TLS")
        tls = ListenerTls()
    listener = msgspec.structs.replace(
        listener,
        address="127.0.0.1:0",
        tls=tls,
        proxy_protocol=ProxyProtocol(("127.0.0.1/32",)),
        xclient=Xclient(),
    )
    return msgspec.structs.replace(settings, listeners=(listener,)), notes


async def _try(
    directory: Path,
    settings: Settings,
    listener: ListenerSettings,
    client: ipaddress.IPv4Address | ipaddress.IPv6Address,
    options: argparse.Namespace,
) -> tuple[list[Step], list[str]]:
    compiled = compile_directory(directory, surroundings(settings, any_namespace=True))
    for key, condition in compiled.rejected:
        raise ManifestError(str(directory), str(key), condition.message)
    tried, notes = _for_trying(settings, listener)
    async with contextlib.AsyncExitStack() as stack:
        parts = Assembly(settings, directory, "try")  # not entered: its log stays closed, its directories are used
        stack.push_async_exit(parts.__aexit__)
        await parts.start_directories()
        log, topics = MemoryLog(), Topics()
        await log.start()
        stack.push_async_callback(log.close)
        await log.ensure_topics(topics.specs(tuple(settings.stores), 1))
        state = LogState(log, topics.state, KINDS, now_ms)
        await state.start()
        stack.push_async_callback(state.close)
        events, tables = _Recorded(), _TablesNow(directory)
        edge = EdgeServer(
            EdgeDependencies(
                log=log,
                content=ContentLog(log, topics.content_transit),
                state=state,
                directories=parts.directories,
                resolver=await parts.resolver(),
                events=events,
                tracer=Tracer("try"),
                topics=topics,
                settings=tried,
                now_ms=now_ms,
                access=tables,
                call_ahead=await parts.call_ahead(),
                scanners=parts.scanners(),
            )
        )
        edge.on_configuration(Tables(compiled.configuration))
        stack.push_async_callback(edge.close)
        await edge.start()
        steps = await _Talk(edge, events, tried.listeners[0]).play(client, options)
        return steps, [*notes, *tables.faults]


class _Talk:
    """The client's side."""

    def __init__(self, edge: EdgeServer, events: _Recorded, listener: ListenerSettings) -> None:
        self._edge, self._events, self._listener = edge, events, listener
        self._steps: list[Step] = []
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def play(
        self, client: ipaddress.IPv4Address | ipaddress.IPv6Address, options: argparse.Namespace
    ) -> list[Step]:
        sock = socket.create_connection(self._edge.address(self._listener.name), timeout=REPLY_LIMIT_S)
        family, here = ("TCP4", "192.0.2.255") if client.version == 4 else ("TCP6", "2001:db8::ffff")
        sock.sendall(f"PROXY {family} {client} {here} 40000 25\r\n".encode("ascii"))
        context = _anything() if self._listener.tls.implicit else None
        self._reader, self._writer = await asyncio.open_connection(
            sock=sock, ssl=context, server_hostname="localhost" if context else None
        )
        try:
            with contextlib.suppress(EOFError):
                await self._session(options)
        finally:
            self._writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._writer.wait_closed()
        return self._steps

    async def _session(self, options: argparse.Namespace) -> None:
        if not await self._step("(connect)", b""):
            return
        if not await self._say(f"EHLO {options.helo}"):
            return
        if "STARTTLS" in self._steps[-1].reply.split() and await self._say("STARTTLS"):
            await self._writer.start_tls(_anything(), server_hostname="localhost")
            await self._say(f"EHLO {options.helo}")
        sender = options.sender.strip("<>")
        if not await self._say(f"MAIL FROM:<{sender}>"):
            return
        taken = [
            recipient for recipient in options.recipients if await self._say(f"RCPT TO:<{recipient.strip('<>')}>")
        ]
        if taken and await self._say("DATA"):
            await self._step("(message)", _content(options, sender, taken[0]))
        await self._say("QUIT")

    async def _say(self, command: str) -> bool:
        return await self._step(command, command.encode() + b"\r\n")

    async def _step(self, command: str, data: bytes) -> bool:
        """Send, wait for the reply, note it with what the checks told; True when it is positive."""
        self._writer.write(data)
        lines = []
        while True:
            async with asyncio.timeout(REPLY_LIMIT_S):
                line = (await self._reader.readline()).decode("utf-8", "replace").rstrip("\r\n")
            if not line:
                raise EOFError
            lines.append(line)
            if line[3:4] != "-":
                break
        looked = self._looked_up() if command.startswith("RCPT") else ()
        self._steps.append(Step(command, (*looked, *self._events.take()), "\n".join(lines)))
        return lines[-1][0] in "23"

    def _looked_up(self) -> tuple[dict[str, str], ...]:
        """What the edge knows of the client by now, whether it speaks against it or not: told at the first RCPT."""
        session = next(iter(self._edge.sessions), None)
        if session is None or session.transaction is None or any(step.checks for step in self._steps):
            return ()
        found = []
        if session.verdicts is not None:
            facts = session.verdicts.client
            names = {"names": " ".join(facts.names), "confirmed": " ".join(facts.confirmed)}
            lists = {f"list {one.place}": one.outcome.value for one in facts.listings}
            found.append(
                {"event": "looked up", "check": "client", "reverse": facts.reverse.value, **names, **lists}
            )
        rule = session.transaction.access.client if session.transaction.access is not None else None
        if rule is not None:
            action = "Skip" if rule.action is None else rule.action.value
            found.append(
                {"event": "rule", "check": "access", "key": rule.key, "action": action, "origin": rule.origin}
            )
        return tuple(found)


def _anything() -> ssl.SSLContext:
    """The edge is in this process: whose certificate it shows is no question."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _content(options: argparse.Namespace, sender: str, recipient: str) -> bytes:
    """The message as it goes over the line: CR LF, dots stuffed (RFC 5321 4.5.2), and the end."""
    if options.message is None:
        data = MESSAGE.format(sender=sender, recipient=recipient).encode()
    else:
        data = options.message.read_bytes()
    lines = data.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    stuffed = [b"." + line if line.startswith(b".") else line for line in lines]
    return b"\r\n".join(stuffed) + b"\r\n.\r\n"


def _show(steps: list[Step], faults: list[str], listener: str) -> None:
    for fault in faults:
        print(f"note: {fault}")
    print(f"listener {listener}; nothing is delivered")
    for step in steps:
        print(f"C: {step.command}")
        for checked in step.checks:
            facts: dict[str, Any] = dict(checked)
            kind, check = facts.pop("event"), facts.pop("check", "")
            print(f"   {kind} {check}: " + ", ".join(f"{name}={value}" for name, value in facts.items()))
        for line in step.reply.split("\n"):
            print(f"S: {line}")
