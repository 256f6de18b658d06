"""Our SMTP client as tests use it: patient limits, a message, and a host that is a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gatepost.backends.body import MemoryBody
from gatepost.backends.smtp_client import SmtpTransport
from gatepost.backends.smtp_client.limits import Limits
from gatepost.core.envelope import BodyType
from gatepost.core.ports.transport import (
    HostPort,
    OutgoingMessage,
    TlsUse,
    TransportRecipient,
)
from testbed.accepting import accept_no_more
from testbed.smtpsink import DEFAULT_KEYWORDS, SmtpSink

HELO = "mx.gatepost.test"
# Longer than any test takes, except where a test is about a limit.
PATIENT = Limits(
    connect=20,
    command=20,
    data_start=20,
    data_block=20,
    data_end=20,
    idle=20,
    messages_per_connection=100,
    connections_per_host=4,
)
TEXT = b"Subject: probe\r\n\r\n.dot\r\n..\r\nend\r\n"
RECEIVED = b"Received: by mx.gatepost.test\r\n"
WITHOUT_PIPELINING = tuple(word for word in DEFAULT_KEYWORDS if word != "PIPELINING")

BOTH = pytest.mark.parametrize(
    "keywords", [DEFAULT_KEYWORDS, WITHOUT_PIPELINING], ids=["pipelining", "step-by-step"]
)


def changed(**values: float) -> Limits:
    return Limits(**({name: getattr(PATIENT, name) for name in PATIENT.__struct_fields__} | values))


def a_message(*recipients: str, body: bytes | MemoryBody = TEXT, **more: Any) -> OutgoingMessage:
    addresses = recipients or ("bob@example.org",)
    fields: dict[str, Any] = {
        "id": "01HF0000000000000000000000",
        "reverse_path": "alice@example.test",
        "recipients": tuple(TransportRecipient(str(n), address) for n, address in enumerate(addresses)),
        "prepend": RECEIVED,
        "body": MemoryBody(body) if isinstance(body, bytes) else body,
        "body_type": BodyType.SEVEN_BIT,
        "smtputf8": False,
    }
    return OutgoingMessage(**fields | more)


def host(sink: SmtpSink, name: str = "sink.test") -> HostPort:
    return HostPort(name, "127.0.0.1", sink.port)


@asynccontextmanager
async def a_transport(limits: Limits = PATIENT, **more: Any) -> AsyncIterator[SmtpTransport]:
    transport = SmtpTransport(limits=limits, **more)
    try:
        yield transport
    finally:
        await transport.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens in the sink's own thread."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  (what is looked at is another thread's)
            await asyncio.sleep(0.005)


def codes(replies: Any) -> list[tuple[int, str]]:
    return [(reply.code, reply.enhanced) for reply in replies]


async def send(transport: SmtpTransport, sink: SmtpSink, message: OutgoingMessage | None = None) -> Any:
    return await transport.send(host(sink), message or a_message(), TlsUse.NEVER, HELO)


@asynccontextmanager
async def a_server(talk: Any) -> AsyncIterator[int]:
    """A host that does what the coroutine function says; its failure fails the test."""
    tasks: list[asyncio.Task[None]] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(run(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await accept_no_more(server.sockets)
        server.close()
        for task in tasks:
            await asyncio.wait_for(task, 20)
