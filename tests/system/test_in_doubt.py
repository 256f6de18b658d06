"""A client's retry after an append of unknown outcome arrives once: whole path, real brokers, real processes (G1).

The broker (or the embedded log's file) hangs at the end of DATA, so that the client gets 451 while the record is
under way; it is written when the log goes on; and the retry comes to another edge.
"""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.installation import Installation, Member
from testbed.kafka import Kafka
from testbed.world import wait_for

pytestmark = [pytest.mark.servers, pytest.mark.lengthy]

DOMAIN = "example.test"
MANIFESTS = f"""
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {{name: example}}
spec:
  domain: {DOMAIN}
  recipients: {{source: {{type: Static, addresses: [once, twice, again, probe]}}}}
  delivery: {{type: Mailbox, store: one}}
"""
SETTINGS: dict[str, Any] = {
    "hostname": "mx.example.test",
    "listeners": [{"name": "mx", "role": "mx", "address": "127.0.0.1:0"}],
    "stores": {"one": {"maildir": {"path": "mail"}}},
    "telemetry": {"logFormat": "json"},
}
SENDER = "sender@elsewhere.example"
# The edge answers within log.appendTimeout (8 s) and a little; this only ends what would hang.
PATIENCE = 60.0


class Session:
    """A client that stops just before the final dot."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._socket.close()

    def reply(self) -> str:
        while True:
            line = self._file.readline().decode()
            if line[3:4] != "-":
                return line.strip()

    def begin(self, recipient: str, message: bytes) -> None:
        """Everything up to the end of the content."""
        assert self.reply().startswith("220")
        for command in ("EHLO client.example.org", f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{recipient}>"):
            self._socket.sendall(command.encode() + b"\r\n")
            assert self.reply().startswith("250")
        self._socket.sendall(b"DATA\r\n")
        assert self.reply().startswith("354")
        self._socket.sendall(message)

    def end(self) -> None:
        self._socket.sendall(b".\r\n")


def send(port: int, recipient: str, message: bytes) -> str:
    """Send and return the id in the 250 reply."""
    with Session(port) as session:
        session.begin(recipient, message)
        session.end()
        reply = session.reply()
    assert reply.startswith("250 "), reply
    return reply.rpartition(" ")[2]


def message(subject: str) -> bytes:
    return f"Date: Sun, 22 Nov 2026 04:00:00 +0000\r\nSubject: {subject}\r\n\r\nx\r\n".encode()


def doubted(
    edge: Member, recipient: str, text: bytes, hang: Callable[[], None], go_on: Callable[[], None]
) -> float:
    """Have an append end in doubt, and the log go on; return how long the client waited for 451.

    The edge might notice that the log hangs before it appends: then nothing is in doubt, and we try again.
    """
    # An edge asks for a topic's partitions at its first append: one that hangs there is known not to be written.
    wait_for(lambda: works(edge), bool)
    before = edge.metrics()["gatepost_edge_append_doubtful_total"]
    for _ in range(5):
        with Session(edge.mx) as session:
            session.begin(recipient, text)
            hang()
            try:
                session.end()
                began = time.monotonic()
                assert session.reply().startswith("451 4.3.0 ")
                waited = time.monotonic() - began
            finally:
                go_on()
        if edge.metrics()["gatepost_edge_append_doubtful_total"] > before:
            return waited
        # Until a message goes through: a log that has just come back may be away once more.
        wait_for(lambda: works(edge), bool)
    raise AssertionError("no append ended in doubt")


def works(edge: Member) -> bool:
    try:
        return bool(send(edge.mx, f"probe@{DOMAIN}", message("probe")))
    except (AssertionError, OSError):
        return False


def shared(edge: Member) -> float:
    return edge.metrics()['gatepost_state_entries{kind="in-doubt"}']


class Installed:
    """Two edges, a router and a store on one broker."""

    def __init__(self, kafka: Kafka, installation: Installation) -> None:
        self.kafka, self.installation = kafka, installation
        self.edges = installation.of("edge")

    def arrived(self, name: str) -> list[bytes]:
        return arrived(self.installation.members["mailbox"], name)


def arrived(member: Member, name: str) -> list[bytes]:
    folder = member.state / "mail" / f"{name}@{DOMAIN}" / "new"
    return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.exists() else []


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("in-doubt")
    with Kafka(tmp_path_factory.mktemp("kafka")) as kafka:
        log = {
            "kafka": {
                "bootstrapServers": kafka.bootstrap.split(","),
                "replicationFactor": 1,
                "minInsyncReplicas": 1,
            },
            "partitions": 2,
        }
        with Installation(folder, {**SETTINGS, "log": log}, MANIFESTS) as installation:
            installation.publish()
            installation.add("edge", "edge-1")
            installation.add("edge", "edge-2")
            installation.add("router", "router")
            installation.add("mailbox", "mailbox", "--store", "one")
            installation.start()
            yield Installed(kafka, installation)


def test_a_retry_through_another_edge_arrives_once(path: Installed) -> None:
    """The broker is stopped at the end of DATA, the client gets 451 in time, the record is written afterwards."""
    one, other = path.edges
    text = message("only once")
    waited = doubted(one, f"once@{DOMAIN}", text, path.kafka.suspend, path.kafka.resume)
    assert waited < 10
    wait_for(lambda: arrived_ids(path.arrived("once")), lambda found: len(found) == 1)
    wait_for(lambda: shared(other), lambda count: count == 1)
    retried = send(other.mx, f"once@{DOMAIN}", text)
    # A last mail behind it: when that has arrived, a second copy would have as well.
    send(other.mx, f"once@{DOMAIN}", message("behind"))
    found = wait_for(lambda: path.arrived("once"), lambda found: any(b"Subject: behind" in m for m in found))
    copies = [stored for stored in found if b"Subject: only once" in stored]
    assert len(copies) == 1
    assert retried.encode() in copies[0], "the first try's own Received line has the id that the retry was told"
    wait_for(lambda: (shared(one), shared(other)), lambda counts: counts == (0, 0))


def arrived_ids(stored: list[bytes]) -> list[bytes]:
    return [text for text in stored if b"Subject: only once" in text]


def test_two_mails_on_purpose_arrive_twice(path: Installed) -> None:
    """Identical, from one client, one through each edge and one more: nothing was in doubt."""
    text = message("on purpose")
    ids = [send(edge.mx, f"twice@{DOMAIN}", text) for edge in (*path.edges, path.edges[0])]
    assert len(set(ids)) == 3
    found = wait_for(lambda: path.arrived("twice"), lambda found: len(found) == 3)
    assert all(b"Subject: on purpose" in stored for stored in found)


def test_the_embedded_log_hangs(tmp_path: Path) -> None:
    """The same in one process: another one holds the file's lock, as a backup or a hanging disk does."""
    with Installation(tmp_path, {**SETTINGS, "log": {"sqlite": {}}}, MANIFESTS) as installation:
        member = installation.add("run", "standalone")
        (Path(member.config) / "objects.yaml").write_text(MANIFESTS)
        installation.start()
        file = member.state / "log.sqlite3"
        blockers: list[sqlite3.Connection] = []

        def hang() -> None:
            blockers.append(sqlite3.connect(file, isolation_level=None, timeout=PATIENCE))
            blockers[-1].execute("BEGIN IMMEDIATE")

        def go_on() -> None:
            blockers.pop().close()

        text = message("only once")
        waited = doubted(member, f"again@{DOMAIN}", text, hang, go_on)
        assert waited < 10
        wait_for(lambda: arrived_ids(arrived(member, "again")), lambda found: len(found) == 1)
        wait_for(lambda: shared(member), lambda count: count == 1)
        first = send(member.mx, f"again@{DOMAIN}", text)
        second = send(member.mx, f"again@{DOMAIN}", text)
        assert first != second
        found = wait_for(lambda: arrived(member, "again"), lambda found: len(found) == 2)
        assert [sum(own.encode() in stored for stored in found) for own in (first, second)] == [1, 1]
