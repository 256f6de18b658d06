"""What is measured: Gatepost on Kafka and standalone, with its processes by role. The others are in peers.py."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from maildirs import Maildirs
from process_tree import cpu_seconds
from smtp_load import USERS

from testbed.installation import Installation, Member
from testbed.kafka import Kafka

LDIF = Path(__file__).resolve().parent.parent / "tests/data/ldap/example.ldif"
PARTITIONS = 4

MANIFESTS = """
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: example-test}
spec:
  domain: example.test
  recipients: {source: {type: Directory, directoryRef: {name: corp}}, maxMessageSize: 50Mi}
  delivery: {type: Mailbox, store: one}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: mx}
spec:
  target: {type: Listeners, listeners: [mx]}
  connection: {perHost: {concurrent: 1000}}
  smtp: {limits: {messageSize: 60Mi, junkCommands: 1000000}}
"""


class System(Protocol):
    """Something that takes mail on `port` and whose cost is that of the processes in `roles`."""

    name: str

    @property
    def port(self) -> int: ...

    @property
    def roles(self) -> Mapping[str, int]:
        """The process id of each role's root."""

    def cpu(self) -> Mapping[str, float]:
        """The CPU seconds of each role so far."""

    def holds(self, user: str, end: bytes) -> bool:
        """Whether a message in the user's mailbox ends in these bytes (CRLF counts as LF)."""

    def delivered(self) -> int:
        """How many messages lie in the mailboxes.

        Nothing is removed between two measurements: ext4 looks one by one at inodes that were freed within the last
        minutes before it takes one, which would be counted as the cost of the next messages.
        """


def _mailboxes(root: Path) -> Maildirs:
    return Maildirs({user: root / f"{user}@example.test" for user in USERS})


class GatepostOnKafka:
    """One edge, and where mail is delivered one router and one mailbox process, beside one broker."""

    def __init__(self, name: str, installation: Installation, kafka: Kafka) -> None:
        self.name, self.installation = name, installation
        self._kafka = kafka
        mailboxes = installation.of("mailbox")
        root = mailboxes[0].state / "mail-one" if mailboxes else installation.folder
        self._mail = _mailboxes(root)

    @property
    def edge(self) -> Member:
        return self.installation.of("edge")[0]

    @property
    def port(self) -> int:
        return self.edge.mx

    @property
    def roles(self) -> Mapping[str, int]:
        return {
            **{member.service: member.pid for member in self.installation.members.values()},
            "broker": self._kafka.nodes[0].pid,
        }

    def cpu(self) -> Mapping[str, float]:
        return cpu_seconds(self.roles)

    def delivered(self) -> int:
        return self._mail.count()

    def holds(self, user: str, end: bytes) -> bool:
        return self._mail.holds(user, end)


class GatepostStandalone:
    """`gatepost run`: everything in one process on the embedded log."""

    name = "standalone"

    def __init__(self, installation: Installation) -> None:
        self.member = installation.members["standalone"]
        self._mail = _mailboxes(self.member.state / "mail-one")

    @property
    def port(self) -> int:
        return self.member.mx

    @property
    def roles(self) -> Mapping[str, int]:
        return {"standalone": self.member.pid}

    def cpu(self) -> Mapping[str, float]:
        return cpu_seconds(self.roles)

    def delivered(self) -> int:
        return self._mail.count()

    def holds(self, user: str, end: bytes) -> bool:
        return self._mail.holds(user, end)


@contextmanager
def broker(folder: Path) -> Iterator[Kafka]:
    """One broker whose JVM may use its second compiler, as one that runs for long does; the tests' may not."""
    folder.mkdir()
    kafka = Kafka(folder)
    for node in kafka.nodes:
        place = node.argv.index("-cp")
        node.argv[place:place] = ["-XX:TieredStopAtLevel=4"]
    with kafka:
        yield kafka


@contextmanager
def trace_collector() -> Iterator[str]:
    """Takes spans and forgets them, in this process: sending them is counted, keeping them is not."""

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, name="traces", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def gatepost_on_kafka(
    folder: Path,
    name: str,
    kafka: Kafka,
    traces: str,
    *,
    deliver: bool,
    flush: bool = False,
    routes: bool = False,
    manifests: str = MANIFESTS,
    more: Mapping[str, Any] | None = None,
) -> Iterator[GatepostOnKafka]:
    """`more` are settings. With `flush` the broker syncs every record before it acknowledges (flush.messages=1);
    with `routes` the store's process routes, and there is no router."""
    log = {
        "kafka": {
            "bootstrapServers": kafka.bootstrap.split(","),
            "replicationFactor": 1,
            "minInsyncReplicas": 1,
        },
        "topicPrefix": f"{name}.",
        "partitions": PARTITIONS,
    }
    settings = {**_settings(traces, routes=routes), "log": log, **(more or {})}
    with Installation(folder / name, settings, manifests) as installation:
        installation.publish()
        installation.add("edge", "edge")
        if deliver:
            if not routes:
                installation.add("router", "router")
            installation.add("mailbox", "mailbox", "--store", "one")
        installation.start()
        if flush:
            asyncio.run(_flush_every_message(kafka, f"{name}."))
        yield GatepostOnKafka(name, installation, kafka)


@contextmanager
def gatepost_standalone(folder: Path, traces: str) -> Iterator[GatepostStandalone]:
    with Installation(folder / "alone", _settings(traces), MANIFESTS) as installation:
        member = installation.add("run", "standalone")
        (member.config / "objects.yaml").write_text(MANIFESTS)
        installation.start()
        yield GatepostStandalone(installation)


def _settings(traces: str, *, routes: bool = False) -> dict[str, Any]:
    return {
        "hostname": "mx.example.test",
        "directories": {"corp": {"ldif": {"file": str(LDIF)}}},
        "listeners": [{"name": "mx", "role": "mx", "address": "127.0.0.1:0"}],
        "stores": {"one": {"maildir": {"path": "mail-one", "routes": routes}, "mailHosts": ["mx.example.test"]}},
        "telemetry": {"otlpEndpoint": traces, "traceSampling": 0.01, "logFormat": "json"},
    }


async def _flush_every_message(kafka: Kafka, prefix: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        names = [name for name in await admin.list_topics() if name.startswith(prefix)]
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name, {"flush.messages": "1"}) for name in names]
        )
    finally:
        await admin.close()
