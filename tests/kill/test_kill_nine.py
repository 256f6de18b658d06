"""kill -9 of each kind of process and of a broker, under load, while a reader takes the mail out of new/.

What got 250 arrives; in Maildir exactly once; by SMTP at most what was in flight at a kill comes twice.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from testbed.dns import FakeDns
from testbed.installation import Installation, Member
from testbed.kafka import Kafka
from testbed.load import Load, Reader, token_of
from testbed.smtpsink import SmtpSink
from testbed.world import wait_for

pytestmark = pytest.mark.kill

CLIENTS = 64
IN_FLIGHT = 50
BETWEEN = int(os.environ.get("GATEPOST_KILL_BETWEEN", "150"))
"""Messages that get 250 between two kills."""
ROUNDS = int(os.environ.get("GATEPOST_KILL_ROUNDS", "2"))
MAILBOXES = 20
LARGE = 100_000  # over the limit for inline bodies

MANIFESTS = f"""
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {{name: stored}}
spec:
  domain: stored.test
  recipients: {{source: {{type: Static, addresses: [{", ".join(f"u{n}" for n in range(MAILBOXES))}]}}}}
---
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {{name: relayed}}
spec:
  domain: relayed.test
  recipients: {{source: {{type: Any}}}}
  delivery: {{type: Relay, hosts: ["[mx.relayed.test]"]}}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {{name: mx}}
spec:
  target: {{type: Listeners, listeners: [mx]}}
  connection: {{perHost: {{concurrent: 200}}}}
"""


def settings(bootstrap: str, dns: int, smtp: int) -> dict[str, object]:
    return {
        "hostname": "mx.stored.test",
        "log": {"kafka": {"bootstrapServers": bootstrap.split(",")}, "partitions": 4},
        "listeners": [{"name": "mx", "role": "mx", "address": "127.0.0.1:0"}],
        "stores": {"local": {"maildir": {"path": "mail"}}},
        "dns": {"servers": [f"127.0.0.1:{dns}"], "timeout": "2s"},
        "relay": {"smtpPort": smtp, "connectTimeout": "5s", "connectionsPerSite": 20},
        "telemetry": {"logLevel": "warning", "logFormat": "json"},
    }


def address_of(number: int) -> str:
    return f"r{number}@relayed.test" if number % 20 == 0 else f"u{number % MAILBOXES}@stored.test"


def size_of(number: int) -> int:
    return LARGE if number % 50 == 7 else 2000


def verify(load: Load, reader: Reader, sink: SmtpSink, killed_in_flight: int) -> None:
    stored = {token for token, recipient in load.promised.items() if recipient.endswith("stored.test")}
    relayed = {token for token, recipient in load.promised.items() if recipient.endswith("relayed.test")}
    wait_for(lambda: stored - set(reader.seen), lambda missing: not missing, seconds=120)

    def sent() -> Counter[str]:
        return Counter(token_of(transaction.data) for transaction in list(sink.transactions))

    wait_for(lambda: relayed - set(sent()), lambda missing: not missing, seconds=120)
    reader.finish()
    assert {token: count for token, count in reader.seen.items() if count > 1} == {}, "twice in Maildir"
    extra = sum(count - 1 for count in sent().values())
    assert extra <= killed_in_flight, "more copies by SMTP than were in flight at the kills"
    assert set(reader.seen) <= load.attempted
    print(
        f"\n{len(load.promised)} promised, {len(load.attempted)} attempted; lost 0, extra in Maildir 0, "
        f"extra by SMTP {extra} (in flight at the kills: {killed_in_flight}); refused {dict(load.refused)}"
    )


def test_separate_processes_on_three_brokers(tmp_path: Path) -> None:
    """Fails without durable appends before 250, outputs before commits, or the ledger of the store."""
    (tmp_path / "kafka").mkdir()
    with (
        Kafka(tmp_path / "kafka", nodes=3) as kafka,
        FakeDns("mx.relayed.test. 60 IN A 127.0.0.1\n") as dns,
        SmtpSink() as sink,
        Installation(tmp_path / "gatepost", settings(kafka.bootstrap, dns.port, sink.port), MANIFESTS) as own,
    ):
        own.publish()
        for number in (1, 2):
            own.add("edge", f"edge-{number}")
            own.add("router", f"router-{number}")
        own.add("mailbox", "mailbox")
        own.add("relay", "relay")
        own.start()
        mailbox = own.members["mailbox"]
        reader = Reader(mailbox.state / "mail")
        load = Load(
            [edge.mx for edge in own.of("edge")],
            clients=CLIENTS,
            per_connection=20,
            address_of=address_of,
            size_of=size_of,
        )
        reader.start()
        load.start()
        victims = ["edge-1", "router-1", "mailbox", "relay", "edge-2", "router-2"]
        in_flight = 0
        for round_number in range(ROUNDS):
            for name in victims:
                load.await_busy(IN_FLIGHT, BETWEEN)
                in_flight += load.in_flight + CLIENTS
                own.members[name].kill9()
                own.members[name].start()
            node = kafka.nodes[round_number % 3]
            load.await_busy(IN_FLIGHT, BETWEEN)
            in_flight += load.in_flight + CLIENTS
            node.kill9()
            load.await_busy(0, BETWEEN)
            node.start()
        load.finish()
        verify(load, reader, sink, in_flight)


def test_standalone(tmp_path: Path) -> None:
    """The same for one process on SQLite. Fails without synchronous appends or the ledger of the store."""
    with FakeDns("mx.relayed.test. 60 IN A 127.0.0.1\n") as dns, SmtpSink() as sink:
        document = {**settings("", dns.port, sink.port), "log": {"sqlite": {}, "partitions": 4}}
        own = Member("run", "standalone", tmp_path, document)
        (own.config / "objects.yaml").write_text(MANIFESTS)
        with own:
            reader = Reader(own.state / "mail")
            load = Load([own.mx], clients=CLIENTS, per_connection=20, address_of=address_of, size_of=size_of)
            reader.start()
            load.start()
            in_flight = 0
            for _ in range(ROUNDS * 3):
                load.await_busy(IN_FLIGHT, BETWEEN)
                in_flight += load.in_flight + CLIENTS
                own.kill9()
                own.start()
            load.finish()
            verify(load, reader, sink, in_flight)
