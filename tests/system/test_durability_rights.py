"""A cluster that allows each service what docs/operations.md lists, and nothing else."""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gatepost.backends.log_kafka import KafkaLog
from gatepost.core.manifest.settings import KafkaSettings, SaslMechanism
from gatepost.core.ports.log import Cleanup, Entry, LogError, LogUnavailable, TopicSpec
from gatepost.core.rights import Right, rights_of
from gatepost.core.topics import RETRY_TIERS, Topics
from testbed.dns import FakeDns
from testbed.installation import GATEPOST, Installation, Member
from testbed.kafka import Kafka, Operation, Resource
from testbed.smtpsink import SmtpSink
from testbed.witness import KafkaWitness
from testbed.world import wait_for

pytestmark = pytest.mark.servers

OPERATIONS = Path(__file__).resolve().parents[2] / "docs/operations.md"
PREFIX = "mail."
STORES = ("local",)
TOPICS = Topics(PREFIX)
SERVICES = ("edge", "router", "mailbox", "relay")

# Which right is missing, of which service; each has a user of its own.
TAKEN_AWAY = {
    "edge1": ("edge", "WRITE on topic mail.accepted"),
    "edge2": ("edge", "READ on topic mail.config"),
    "edge3": ("edge", "DESCRIBE_CONFIGS on topic mail.state"),
    "router1": ("router", "READ on topic mail.accepted"),
    "router2": ("router", "READ on group mail.router"),
    "router3": ("router", "DELETE on topic mail.content.transit"),
    "router4": ("router", "DESCRIBE on group mail.retry.4h"),
    "mailbox1": ("mailbox", "WRITE on topic mail.quarantine"),
    "relay1": ("relay", "READ on group mail.retry.1m"),
}
# A store's process that routes; the second one lacks a right of a router's.
ROUTING, ROUTING_LACKS = "routing", "READ on topic mail.accepted"
USERS = {name: f"{name}-secret" for name in (*SERVICES, *TAKEN_AWAY, ROUTING, f"{ROUTING}1", "late")}

MANIFESTS = """
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: a}
spec:
  domain: a.test
  recipients: {source: {type: Static, addresses: [ann]}}
  delivery: {type: Mailbox, store: local}
---
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: b}
spec:
  domain: b.test
  recipients: {source: {type: Any}}
  delivery: {type: Relay, hosts: ["[mx.b.test]"]}
"""


def rights_in_the_docs(service: str) -> set[Right]:
    """What docs/operations.md says of a service, with its names written out."""
    rows = [line.strip("|").split("|") for line in OPERATIONS.read_text().splitlines() if line.startswith("|")]
    (row,) = [row for row in rows if row[0].strip() == service]
    columns = (("READ", "topic"), ("WRITE", "topic"), ("DELETE", "topic"), ("READ", "group"), ("DESCRIBE", "group"))
    found: set[Right] = set()
    for (operation, kind), text in zip(columns, row[1:], strict=True):
        names = [name.strip() for name in text.split(",") if name.strip() != "-"]
        found |= {Right(kind, f"{PREFIX}{name}", operation) for each in names for name in written_out(each)}
    everywhere = [spec.name for spec in TOPICS.specs(STORES, 1)]
    return found | {Right("topic", name, op) for name in everywhere for op in ("DESCRIBE", "DESCRIBE_CONFIGS")}


def written_out(name: str) -> Sequence[str]:
    if name == "retry.*":
        return [f"retry.{tier}" for tier in RETRY_TIERS]
    return ["mailbox.local"] if name in ("mailbox.*", "mailbox.STORE") else [name]


@pytest.mark.parametrize("service", SERVICES)
def test_the_docs_list_what_the_program_asks_for(service: str) -> None:
    assert rights_in_the_docs(service) == set(rights_of(service, TOPICS, STORES, "local"))


def grant(kafka: Kafka, user: str, rights: set[Right]) -> None:
    kafka.allow_all(
        user,
        [
            (Operation[one.operation], Resource.GROUP if one.kind == "group" else Resource.TOPIC, one.name)
            for one in rights
        ],
    )


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("kafka"), users=USERS) as broker:
        for service in SERVICES:
            grant(broker, service, rights_in_the_docs(service))
        for user, (service, lacking) in TAKEN_AWAY.items():
            grant(broker, user, {right for right in rights_in_the_docs(service) if str(right) != lacking})
        both = rights_in_the_docs("mailbox") | rights_in_the_docs("router")
        grant(broker, ROUTING, both)
        grant(broker, f"{ROUTING}1", {right for right in both if str(right) != ROUTING_LACKS})
        yield broker


def settings(kafka: Kafka, dns: int, smtp: int) -> dict[str, Any]:
    return {
        "hostname": "mx.a.test",
        "log": {
            "kafka": {
                "bootstrapServers": kafka.bootstrap.split(","),
                "replicationFactor": 1,
                "minInsyncReplicas": 1,
            },
            "partitions": 2,
            "topicPrefix": PREFIX,
        },
        "listeners": [{"name": "mx", "role": "mx", "address": "127.0.0.1:0"}],
        "stores": {"local": {"maildir": {"path": "mail"}}},
        "dns": {"servers": [f"127.0.0.1:{dns}"], "timeout": "2s"},
        "relay": {"smtpPort": smtp},
    }


def secured(log: dict[str, Any], kafka: Kafka, user: str, folder: Path) -> dict[str, Any]:
    """The log's settings with this user, its name and its password out of files."""
    name, password = folder / f"{user}.name", folder / f"{user}.password"
    name.write_text(f"{user}\n")
    password.write_text(f"{USERS[user]}\n")
    secrets = {"usernameFile": str(name), "passwordFile": str(password), "saslMechanism": "PLAIN"}
    servers = kafka.sasl_bootstrap.split(",")
    return {**log, "kafka": {**log["kafka"], "bootstrapServers": servers, "createTopics": False, **secrets}}


@pytest.fixture(scope="module")
def installation(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, SmtpSink]]:
    """Topics and policy are there, by an administrator; nothing runs yet."""
    zone = "b.test. 60 IN MX 10 mx.b.test.\nmx.b.test. 60 IN A 127.0.0.1\n"
    with SmtpSink() as sink, FakeDns(zone) as dns:
        folder = tmp_path_factory.mktemp("gatepost")
        with Installation(folder, settings(kafka, dns.port, sink.port), MANIFESTS) as made:
            made.publish()
            yield made, sink


def test_the_documented_rights_are_enough_for_the_whole_path(
    installation: tuple[Installation, SmtpSink], kafka: Kafka
) -> None:
    """A large body, a mailbox, a next hop, a deferral: nothing else than the documented rights is used."""
    made, sink = installation
    for service in SERVICES:
        words = ("--store", "local") if service == "mailbox" else ()
        made.add(service, service, *words, log=secured(made.settings["log"], kafka, service, made.folder))
    made.start()
    message = b"Subject: x\r\n\r\n" + b"0123456789abcdef\r\n" * 10_000
    sink.script("RCPT", "450 4.2.0 later", match="late@b.test", times=1)
    with smtplib.SMTP("127.0.0.1", made.members["edge"].mx, timeout=60) as client:
        client.sendmail("s@elsewhere.test", ["ann@a.test", "bea@b.test", "late@b.test"], message)
    folder = made.members["mailbox"].state / "mail/ann@a.test/new"
    (stored,) = wait_for(lambda: list(folder.glob("*")) if folder.exists() else [], bool)
    assert stored.read_bytes().endswith(message)
    wait_for(lambda: [t for t in sink.transactions if "bea@b.test" in t.addresses], bool)
    wait_for(lambda: made.members["relay"].metrics().get('gatepost_retry_deferrals_total{tier="1m"}', 0), bool)
    text = "".join(member.log_tail() for member in made.members.values())
    assert "AuthorizationFailed" not in text
    for member in made.members.values():
        member.stop()


def refusal_to_start(member: Member, folder: Path) -> str:
    """What a process says that ends at its start with the exit status for wrong settings."""
    done = subprocess.run(
        [GATEPOST, member.service, "--config", member.config, "--state", folder / "state"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    return done.stderr


@pytest.mark.parametrize("user", TAKEN_AWAY)
def test_a_missing_right_is_named_at_the_start(
    installation: tuple[Installation, SmtpSink], kafka: Kafka, tmp_path: Path, user: str
) -> None:
    """The process ends with topic and operation, instead of mail that hangs."""
    made, _ = installation
    service, lacking = TAKEN_AWAY[user]
    member = made.add(service, user, log=secured(made.settings["log"], kafka, user, tmp_path))
    assert f"the {service}'s principal lacks {lacking} (docs/operations.md" in refusal_to_start(member, tmp_path)


def routing_store(made: Installation, kafka: Kafka, folder: Path, user: str) -> dict[str, Any]:
    """Settings of a mailbox process that routes, with this user."""
    stores = {"local": {"maildir": {"path": "mail", "routes": True}}}
    return {"stores": stores, "log": secured(made.settings["log"], kafka, user, folder)}


def test_a_store_that_routes_needs_no_router_and_no_record_for_its_mail(
    installation: tuple[Installation, SmtpSink], kafka: Kafka, tmp_path: Path
) -> None:
    """Its own mail goes into the Maildir at once, other mail goes on; with both services' rights, and no others.

    Fails without the router in it, with a router that knows no near store, or where it uses other rights.
    """
    made, sink = installation
    small, large = b"Subject: small\r\n\r\nx\r\n", b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 10_000
    (tmp_path / "secrets").mkdir()
    with (
        KafkaWitness(kafka.bootstrap, {TOPICS.mailbox("local"): TOPICS.group("mailbox.local")}) as witness,
        Installation(tmp_path / "gatepost", made.settings, MANIFESTS) as own,
    ):
        for service in ("edge", "relay"):
            own.add(service, service, log=secured(made.settings["log"], kafka, service, tmp_path / "secrets"))
        changed = routing_store(made, kafka, tmp_path / "secrets", ROUTING)
        store = own.add("mailbox", "routing", "--store", "local", **changed)
        own.start()
        (started,) = wait_for(lambda: store.told("started"), bool)
        assert started["services"] == ["mailbox", "router"]
        before = sum(witness.ends().values())
        with smtplib.SMTP("127.0.0.1", own.members["edge"].mx, timeout=60) as client:
            client.sendmail("s@elsewhere.test", ["ann@a.test", "cora@b.test"], small)
            wait_for(lambda: [t for t in sink.transactions if "cora@b.test" in t.addresses], bool)
            folder = store.state / "mail/ann@a.test/new"
            (first,) = wait_for(lambda: list(folder.glob("*")), bool)
            assert first.read_bytes().endswith(small)
            assert sum(witness.ends().values()) == before
            # A body by reference is left to the mailbox service, by a record.
            client.sendmail("s@elsewhere.test", ["ann@a.test"], large)
        both = wait_for(lambda: list(folder.glob("*")), lambda found: len(found) == 2)
        assert sorted(path.stat().st_size > len(large) for path in both) == [False, True]
        assert sum(witness.ends().values()) == before + 1
        assert "AuthorizationFailed" not in "".join(member.log_tail() for member in own.members.values())


def test_a_store_that_routes_names_the_routers_right_that_is_missing(
    installation: tuple[Installation, SmtpSink], kafka: Kafka, tmp_path: Path
) -> None:
    made, _ = installation
    changed = routing_store(made, kafka, tmp_path, f"{ROUTING}1")
    member = made.add("mailbox", f"{ROUTING}1", **changed)
    said = refusal_to_start(member, tmp_path)
    assert f"the mailbox's principal lacks {ROUTING_LACKS} (docs/operations.md" in said


async def test_a_right_that_is_taken_away_later_is_said_with_the_topic(kafka: Kafka, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(USERS["late"])
    config = KafkaSettings(
        bootstrap_servers=tuple(kafka.sasl_bootstrap.split(",")),
        sasl_mechanism=SaslMechanism.PLAIN,
        username="late",
        password_file=str(password),
    )
    admin = KafkaLog(
        KafkaSettings(tuple(kafka.bootstrap.split(",")), replication_factor=1, min_insync_replicas=1), client_id="a"
    )
    await admin.start()
    await admin.ensure_topics([TopicSpec("late", Cleanup.TRIM, 1)])
    await admin.close()
    kafka.allow("late", Operation.WRITE, Resource.TOPIC, "late")
    log = KafkaLog(config, client_id="late")
    await log.start()
    await log.append(Entry("late", b"1"), 10)
    kafka.allow("late", Operation.WRITE, Resource.TOPIC, "late", deny=True)
    with pytest.raises(LogUnavailable, match=r"refused.* late: TOPIC_AUTHORIZATION_FAILED"):
        await log.append(Entry("late", b"2"), 10)
    with pytest.raises(LogError, match="TopicAuthorizationFailedError"):
        await log.read("late", 0, [0], 10)
    await log.close()
