"""A ban of one edge holds at another within 2 s, on a real log; an administrator lists, adds and lifts them."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.installation import GATEPOST, Installation, Member
from testbed.kafka import Kafka
from testbed.world import wait_for

pytestmark = [pytest.mark.servers, pytest.mark.lengthy]

MANIFESTS = """
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: example}
spec:
  domain: example.test
  recipients: {source: {type: Static, addresses: [bob]}}
  delivery: {type: Mailbox, store: one}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: mx}
spec:
  target: {type: Listeners, listeners: [mx]}
  recipients: {errorsBeforeDisconnect: 20, harvest: {minUnknown: 10}}
"""
SETTINGS: dict[str, Any] = {
    "hostname": "mx.example.test",
    "listeners": [{"name": "mx", "role": "mx", "address": "127.0.0.1:0"}],
    "stores": {"one": {"maildir": {"path": "mail"}}},
    "telemetry": {"logFormat": "json"},
}
PATIENCE = 60.0
# What is promised is 2 s; twice that leaves room for a machine that does other things as well.
DEADLINE = 4.0


def greeting(edge: Member) -> str:
    with socket.create_connection(("127.0.0.1", edge.mx), timeout=PATIENCE) as client:
        return client.makefile("rb").readline().decode()


def guess(edge: Member, times: int) -> list[str]:
    """Pipeline unknown recipients without reading replies; return all that came back."""
    with socket.create_connection(("127.0.0.1", edge.mx), timeout=PATIENCE) as client:
        lines = client.makefile("rb")
        assert lines.readline().startswith(b"220")
        client.sendall(b"EHLO client.example.org\r\n")
        while lines.readline()[3:4] == b"-":
            pass
        names = b"".join(b"RCPT TO:<mark%d@example.test>\r\n" % number for number in range(times))
        client.sendall(b"MAIL FROM:<a@example.org>\r\n" + names)
        return [line.decode() for line in lines][1:]


def bans(config: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [GATEPOST, "bans", *words, "--config", config],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("kafka")) as made:
        yield made


@pytest.fixture(scope="module")
def edges(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Member, Member]]:
    log = {
        "kafka": {"bootstrapServers": kafka.bootstrap.split(","), "replicationFactor": 1, "minInsyncReplicas": 1}
    }
    settings = {**SETTINGS, "log": {**log, "topicPrefix": "bans."}}
    with Installation(tmp_path_factory.mktemp("bans"), settings, MANIFESTS) as made:
        made.add("edge", "one")
        made.add("edge", "two")
        made.publish()
        made.start()
        yield made.members["one"], made.members["two"]


def test_five_hundred_guesses_end_at_both_edges(edges: tuple[Member, Member]) -> None:
    one, two = edges
    assert greeting(two).startswith("220")
    replies = guess(one, 500)
    assert len(replies) <= 20
    assert replies[-1].startswith("421 4.7.")
    ended = time.monotonic()
    wait_for(lambda: greeting(two), lambda text: text.startswith("421 4.7.1"))
    assert time.monotonic() - ended < DEADLINE
    (ban,) = json.loads(bans(two.config, "list", "--output", "json"))
    assert (ban["subject"], ban["cause"]) == ("127.0.0.0/24", "harvest")
    assert "no longer banned" in bans(two.config, "remove", "127.0.0.0/24")
    wait_for(lambda: greeting(one) + greeting(two), lambda text: text.count("220") == 2)
    bans(two.config, "remove", "127.0.0.0/24", code=1)


def test_by_hand_while_the_gateway_has_its_log(tmp_path: Path) -> None:
    with Installation(tmp_path, {**SETTINGS, "log": {"sqlite": {}}}, MANIFESTS) as made:
        member = made.add("run", "all")
        (member.config / "objects.yaml").write_text(MANIFESTS)
        made.start()
        state = ("--state", str(member.state))
        assert bans(member.config, "list", *state) == "Nobody is banned.\n"
        bans(member.config, "add", "127.0.0.1", "--for", "1h", "--reason", "scans us", *state)
        wait_for(lambda: greeting(member), lambda text: text.startswith("421 4.7.1"))
        assert "127.0.0.1  administrator  " in bans(member.config, "list", *state)
        bans(member.config, "remove", "127.0.0.1", *state)
        wait_for(lambda: greeting(member), lambda text: text.startswith("220"))
        for words in (["add", "0.0.0.0/0"], ["add", "192.0.2.1", "--for", "1d"], ["remove", "x"]):
            bans(member.config, *words, *state, code=2)
