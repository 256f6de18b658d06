"""What accepting costs the edge itself: CPU of its process per message, with a log that keeps nothing.

    python benchmarks/edge_accept.py [--messages N] [--connections N] [--size BYTES] [--profile]

The edge runs in a process of its own, so that only its CPU is counted; clients say EHLO, MAIL, RCPT, DATA and QUIT
one after the other, without pipelining, as smtp-source does. Recipients are looked up in a directory in memory,
events are dropped, 1 % of the messages are traced, log lines go to /dev/null. Figures are medians of --rounds runs.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import multiprocessing
import os
import pstats
import resource
import socket
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, cast

import uvloop
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from gatepost.backends.content_log import ContentLog
from gatepost.backends.resolver_table import TableResolver
from gatepost.backends.state_memory import MemoryState
from gatepost.core.address import Address
from gatepost.core.configuration import Configuration, DeliveryPlan, DomainConfig, ListenerPolicy
from gatepost.core.manifest.settings import ListenerSettings, Settings
from gatepost.core.ports.directory import Entry, EntryKind
from gatepost.core.ports.events import Event
from gatepost.core.ports.log import Entry as LogEntry
from gatepost.core.ports.log import Log, Position
from gatepost.core.state_kinds import KINDS
from gatepost.core.tables import Tables
from gatepost.core.topics import Topics
from gatepost.edge.server import EdgeDependencies, EdgeServer
from gatepost.telemetry.logging import configure_logging
from gatepost.telemetry.tracing import Tracer

Args = argparse.Namespace


class ForgetfulLog:
    """Takes every record and keeps none."""

    available = True
    appended = 0

    async def append(self, entry: LogEntry, limit: float) -> Position:
        self.appended += 1
        return Position(0, self.appended)


class OneUser:
    async def lookup(self, address: Address) -> Entry | None:
        return Entry("bob", EntryKind.ACCOUNT, "bob@example.test", ("bob@example.test",))


class ForgetfulEvents:
    def emit(self, event: Event) -> None:
        pass


class ForgetfulExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def _server(pipe: Connection, profile: bool) -> None:
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the process's life
    configure_logging("json", "info", "edge")
    profiler = cProfile.Profile() if profile else None
    if profiler is not None:
        profiler.enable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(pipe))
    if profiler is not None:
        profiler.disable()
        pstats.Stats(profiler, stream=sys.stdout).sort_stats("tottime").print_stats(45)


async def _serve(pipe: Connection) -> None:
    log = ForgetfulLog()
    fakes: dict[str, Any] = {
        "log": log,
        "content": ContentLog(cast(Log, log), "content"),
        "state": MemoryState(KINDS, lambda: time.time_ns() // 1_000_000),
        "directories": {"people": OneUser()},
        "events": ForgetfulEvents(),
        "resolver": TableResolver(),
    }
    settings = Settings(hostname="mx.example.test", listeners=(ListenerSettings("mx", "127.0.0.1:0"),))
    tracer = Tracer("edge", exporter=ForgetfulExporter())
    server = EdgeServer(
        EdgeDependencies(
            **fakes, tracer=tracer, topics=Topics(), settings=settings, now_ms=lambda: time.time_ns() // 1_000_000
        )
    )
    domain = DomainConfig(
        domain="example.test",
        origin="bench",
        generation=1,
        source_kind="Directory",
        directory="people",
        delivery=DeliveryPlan("Mailbox"),
    )
    policy = ListenerPolicy("mx", per_host_concurrent=100_000)
    server.on_configuration(Tables(Configuration(1, (domain,), (policy,))))
    await server.start()
    pipe.send(server.port("mx"))
    while (question := await asyncio.get_running_loop().run_in_executor(None, pipe.recv)) != "stop":
        assert question == "cpu"
        used = resource.getrusage(resource.RUSAGE_SELF)
        pipe.send((used.ru_utime + used.ru_stime, used.ru_maxrss))
    await server.close()
    tracer.close()


def _read_reply(connection: socket.socket) -> None:
    data = b""
    while not (data.endswith(b"\r\n") and data.splitlines()[-1][3:4] == b" "):
        more = connection.recv(4096)
        if not more:
            raise ConnectionError(f"closed after {data!r}")
        data += more
    if data[:1] not in b"23":
        raise ValueError(data)


def _send(port: int, connections: int, per_connection: int, message: bytes) -> None:
    for _ in range(connections):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _read_reply(connection)

            def say(data: bytes, connection: socket.socket = connection) -> None:
                connection.sendall(data)
                _read_reply(connection)

            say(b"EHLO client.example.org\r\n")
            for _ in range(per_connection):
                say(b"MAIL FROM:<alice@example.org>\r\n")
                say(b"RCPT TO:<bob@example.test>\r\n")
                say(b"DATA\r\n")
                say(message)
            say(b"QUIT\r\n")


def _message(size: int) -> bytes:
    header = (
        b"From: alice@example.org\r\nTo: bob@example.test\r\nSubject: bench\r\nMessage-ID: <1@example.org>\r\n\r\n"
    )
    line = b"The quick brown fox jumps over the lazy dog, and once more until the line is full..\r\n"
    return (header + line * (size // len(line) + 1))[:size] + b"\r\n.\r\n"


def _round(pipe: Connection, port: int, args: Args, per_connection: int) -> tuple[float, float]:
    """CPU microseconds per message and messages per second."""
    connections = max(1, args.messages // per_connection // args.connections)
    total = connections * per_connection * args.connections
    threads = [
        threading.Thread(target=_send, args=(port, connections, per_connection, _message(args.size)))
        for _ in range(args.connections)
    ]
    pipe.send("cpu")
    before, _ = pipe.recv()
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    pipe.send("cpu")
    after, _ = pipe.recv()
    return (after - before) / total * 1e6, total / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--per-connection", type=int, nargs="+", default=[1, 50])
    parser.add_argument(
        "--profile", action="store_true", help="print where the edge's time goes (and slow it down)"
    )
    args = parser.parse_args()
    pipe, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_server, args=(theirs, args.profile))
    process.start()
    port = pipe.recv()
    try:
        for per_connection in args.per_connection:
            _round(pipe, port, args, per_connection)  # warm up
            results = [_round(pipe, port, args, per_connection) for _ in range(args.rounds)]
            cpu = statistics.median(result[0] for result in results)
            rate = statistics.median(result[1] for result in results)
            low, high = min(r[0] for r in results), max(r[0] for r in results)
            print(
                f"{per_connection:>3} per connection: {cpu:6.1f} us CPU per message ({low:.1f}-{high:.1f}), "
                f"{rate:.0f} messages/s from one Python client",
                flush=True,
            )
        pipe.send("cpu")
        print(f"resident: {pipe.recv()[1] // 1024} MiB")
    finally:
        pipe.send("stop")
        process.join(30)


if __name__ == "__main__":
    main()
