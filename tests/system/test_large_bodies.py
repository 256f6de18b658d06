"""Many large bodies, an outage in the middle of them, and idle crowds: a real edge process on a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatepost.backends.content_log import ContentLog
from gatepost.backends.log_kafka import KafkaLog
from gatepost.core.envelope import ENVELOPE_HEADER, Envelope, decode_envelope
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.topics import Topics
from testbed.installation import Installation, Member
from testbed.kafka import Kafka

pytestmark = [pytest.mark.servers, pytest.mark.lengthy]

PREFIX = "large."
MIB = 2**20
# No test waits so long; it only ends one that would hang.
PATIENCE = 120.0
# An outage is answered within this many seconds of a final dot (guarantees.md, G6).
OUTAGE_SECONDS = 10.0
# What the edge may need above its size at rest for any number of large bodies with the cap below: bodies in hand,
# the pieces in the log's window with their copies, and what the allocator keeps.
MOST_GROWTH = 128 * MIB
MOST_PER_IDLE_CONNECTION = 64 * 1024

MANIFESTS = """
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: example-test}
spec:
  domain: example.test
  recipients: {source: {type: Static, addresses: [bob]}, maxMessageSize: 50Mi}
  delivery: {type: Mailbox, store: one}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: mx}
spec:
  target: {type: Listeners, listeners: [mx]}
  connection: {perHost: {concurrent: 5000}, total: {concurrent: 5000}}
"""


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory, kafka: Kafka) -> Iterator[Member]:
    settings = {
        "hostname": "mx.example.test",
        "log": {
            "kafka": {"bootstrapServers": [kafka.bootstrap], "replicationFactor": 1, "minInsyncReplicas": 1},
            "topicPrefix": PREFIX,
            "partitions": 4,
        },
        "listeners": [{"name": "mx", "role": "mx", "address": "127.0.0.1:0"}],
        "stores": {"one": {"maildir": {"path": "mail"}}},
        "limits": {"memoryForBodies": "4Mi", "sessions": 3000},
    }
    with Installation(tmp_path_factory.mktemp("gatepost"), settings, MANIFESTS) as installation:
        installation.publish()
        member = installation.add("edge", "edge")
        installation.start()
        yield member


def resident(member: Member, what: str) -> int:
    """VmRSS (now) or VmHWM (the peak) of a process, in bytes."""
    status = Path(f"/proc/{member.pid}/status").read_text()
    found = re.search(rf"^{what}:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found.group(1)) * 1024


def body_of(number: int, size: int) -> bytes:
    line = b"%08d " % number + b"0123456789abcdef" * 4 + b"\r\n"
    return b"Subject: %d\r\n\r\n" % number + line * (size // len(line))


class Client:
    """Sends one message; `dot` is when the final dot was sent, in the loop's time."""

    def __init__(self, port: int, message: bytes) -> None:
        self.port, self.message = port, message
        self.sending = asyncio.Event()
        self.may_end = asyncio.Event()
        self.dot = 0.0
        self.waited = 0.0

    async def send(self) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            greeting = await _reply(reader)
            if not greeting.startswith("220"):
                return greeting
            for command in (
                "EHLO client.example.org",
                f"MAIL FROM:<s@example.org> SIZE={len(self.message)}",
                "RCPT TO:<bob@example.test>",
                "DATA",
            ):
                writer.write(f"{command}\r\n".encode())
                reply = await _reply(reader)
                if reply[:1] not in "23":
                    return reply
            half = len(self.message) // 2
            for start in range(0, len(self.message), 200_000):
                writer.write(self.message[start : start + 200_000])
                await writer.drain()
                if start >= half and not self.sending.is_set():
                    self.sending.set()
                    await self.may_end.wait()
            writer.write(b".\r\n")
            await writer.drain()
            self.dot = asyncio.get_running_loop().time()
            reply = await _reply(reader)
            self.waited = asyncio.get_running_loop().time() - self.dot
            return reply
        finally:
            writer.transport.abort()


async def _reply(reader: asyncio.StreamReader) -> str:
    async with asyncio.timeout(PATIENCE):
        while (line := await reader.readline())[3:4] == b"-":
            pass
    return line.decode()


async def stored(kafka: Kafka, ids: set[str]) -> dict[str, str]:
    """The SHA-256 of the body that each of these messages' records refers to, read back in whole."""
    settings = KafkaSettings(bootstrap_servers=(kafka.bootstrap,), replication_factor=1, min_insync_replicas=1)
    log = KafkaLog(settings, client_id="test")
    await log.start()
    topics = Topics(PREFIX)
    content = ContentLog(log, topics.content_transit)
    follower = log.follower(topics.accepted)
    await follower.start()
    found: dict[str, Envelope] = {}
    try:
        async with asyncio.timeout(PATIENCE):
            while not ids <= found.keys():
                for record in await follower.fetch(1.0):
                    envelope = decode_envelope(record.header(ENVELOPE_HEADER) or b"")
                    found[envelope.id] = envelope
        read = {}
        for message_id in ids:
            reference = found[message_id].content
            assert reference is not None
            body = await content.read(reference, PATIENCE)
            digest = hashlib.sha256()
            async for piece in body.pieces(MIB):
                digest.update(piece)
            body.close()
            read[message_id] = digest.hexdigest()
        return read
    finally:
        await follower.close()
        await log.close()


async def test_forty_large_messages_at_once(edge: Member, kafka: Kafka) -> None:
    """320 MB through 4 MiB of memory for bodies: all are accepted at the first attempt, byte for byte."""
    messages = [body_of(number, 8 * MIB) for number in range(40)]
    clients = [Client(edge.mx, message) for message in messages]
    for client in clients:
        client.may_end.set()
    at_rest = resident(edge, "VmRSS")
    replies = await asyncio.gather(*(client.send() for client in clients))
    assert [reply[:3] for reply in replies] == ["250"] * 40
    assert resident(edge, "VmHWM") - at_rest < MOST_GROWTH
    ids = [reply.split()[-1] for reply in replies]
    read = await stored(kafka, set(ids))
    assert [read[one] for one in ids] == [hashlib.sha256(message).hexdigest() for message in messages]
    samples = edge.metrics()
    assert samples["gatepost_edge_body_reserved_bytes"] == 0
    assert samples["gatepost_edge_body_limit_bytes"] == 4 * MIB
    assert samples["gatepost_content_unconfirmed"] == 0


async def test_a_broker_that_hangs_in_the_middle_of_large_messages(edge: Member, kafka: Kafka) -> None:
    """451 for each within 10 s of its final dot, 250 for none; and all are taken once the broker is back."""
    clients = [Client(edge.mx, body_of(number, 6 * MIB)) for number in range(12)]

    async def on_its_way(client: Client) -> str:
        """Its reply; one that is told to come again before it could send does so."""
        while True:
            reply = await client.send()
            if client.sending.is_set():
                return reply
            await asyncio.sleep(0.2)

    tasks: list[asyncio.Task[str]] = []
    # The first ones take memory for whole pieces and fall silent; the others get theirs all the same.
    for group in (clients[:4], clients[4:]):
        tasks += [asyncio.create_task(on_its_way(client)) for client in group]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(client.sending.wait() for client in group))
    broker = kafka.nodes[0]
    broker.suspend()
    try:
        for client in clients:
            client.may_end.set()
        replies = await asyncio.gather(*tasks)
    finally:
        broker.resume()
    assert [reply[:9] for reply in replies] == ["451 4.3.0"] * 12
    assert max(client.waited for client in clients) < OUTAGE_SECONDS
    again = [Client(edge.mx, client.message) for client in clients]
    for client in again:
        client.may_end.set()
    for client in again:
        async with asyncio.timeout(PATIENCE):
            while not (reply := await client.send()).startswith("250"):
                assert reply.startswith("4"), reply
                await asyncio.sleep(0.2)


async def test_a_thousand_idle_connections(edge: Member) -> None:
    """They take little memory, and a new client gets its banner."""
    before = resident(edge, "VmRSS")
    with contextlib.ExitStack() as crowd:
        for _ in range(1000):
            one = crowd.enter_context(socket.create_connection(("127.0.0.1", edge.mx), timeout=PATIENCE))
            assert one.recv(100).startswith(b"220 ")
            one.sendall(b"EHLO idle.example.org\r\n")
            assert one.recv(1000).startswith(b"250")
        assert resident(edge, "VmRSS") - before < 1000 * MOST_PER_IDLE_CONNECTION
        message = body_of(0, 100_000)
        client = Client(edge.mx, message)
        client.may_end.set()
        assert (await client.send()).startswith("250 ")
        assert edge.metrics()['gatepost_edge_sessions_open{listener="mx"}'] >= 1000
