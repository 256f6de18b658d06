"""Topics on Kafka: created with what a guarantee needs, and every wrong setting named; and secured listeners."""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
import socket
import struct
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gatepost.backends.log_kafka import KafkaLog
from gatepost.core.manifest.settings import KafkaSecurity, KafkaSettings
from gatepost.core.ports.log import Cleanup, Entry, LogMisconfigured, LogUnavailable, TopicSpec
from gatepost.core.topics import Topics
from testbed import ports
from testbed.kafka import Kafka

pytestmark = pytest.mark.servers
LIMIT = 30.0
HOUR = 3_600_000


def settings_for(kafka: Kafka, copies: int = 1, in_sync: int = 1, create: bool = True) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=tuple(kafka.bootstrap.split(",")),
        replication_factor=copies,
        min_insync_replicas=in_sync,
        create_topics=create,
    )


@pytest.fixture
async def admin(broker: Kafka) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await client.start()
    yield client
    await client.close()


async def started(settings: KafkaSettings) -> KafkaLog:
    log = KafkaLog(settings, client_id="test")
    await log.start()
    return log


def name() -> str:
    return f"test.{uuid.uuid4().hex[:12]}"


async def config_of(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    [(_, _, _, _, entries)] = answer.resources
    return {entry[0]: entry[1] for entry in entries}


async def test_all_topics_of_an_installation(broker: Kafka, admin: AIOKafkaAdminClient) -> None:
    topics = Topics(f"ns.{uuid.uuid4().hex[:8]}.")
    log = await started(settings_for(broker))
    specs = topics.specs(("main",), 3)
    assert await log.ensure_topics(specs) == [
        "the log is a single Kafka broker: mail accepted with 250 is lost if its disk is lost"
    ]
    assert await log.ensure_topics(specs)
    found = {topic["topic"]: topic for topic in await admin.describe_topics([spec.name for spec in specs])}
    assert {name: len(topic["partitions"]) for name, topic in found.items()} == {
        spec.name: spec.partitions for spec in specs
    }
    work = await config_of(admin, topics.accepted)
    assert work["cleanup.policy"] == "delete"
    assert work["retention.ms"] == work["retention.bytes"] == "-1"
    assert work["unclean.leader.election.enable"] == "false"
    assert work["min.insync.replicas"] == "1"
    assert int(work["max.message.bytes"]) > 1024 * 1024
    events = await config_of(admin, topics.events)
    assert (events["cleanup.policy"], events["retention.ms"]) == ("delete", str(7 * 24 * HOUR))
    control = await config_of(admin, topics.control)
    assert control["cleanup.policy"] == "compact"
    acks = await config_of(admin, topics.acks)
    assert acks["cleanup.policy"] == "compact,delete"
    await log.close()


async def test_every_wrong_setting_is_named(broker: Kafka, admin: AIOKafkaAdminClient) -> None:
    work, state, kept, fine = name(), name(), name(), name()
    wrong_work = {
        "retention.ms": "60000",
        "retention.bytes": "1000000",
        "unclean.leader.election.enable": "true",
        "max.message.bytes": "100000",
    }
    await admin.create_topics(
        [
            NewTopic(work, 1, 1, topic_configs=wrong_work),
            NewTopic(state, 1, 1, topic_configs={"cleanup.policy": "delete"}),
            NewTopic(kept, 1, 1, topic_configs={"retention.ms": str(HOUR), "retention.bytes": "-1"}),
            NewTopic(
                fine,
                4,
                1,
                topic_configs={
                    "retention.ms": str(30 * HOUR),
                    "max.message.bytes": "9000000",
                    "message.timestamp.type": "LogAppendTime",
                },
            ),
        ]
    )
    log = await started(settings_for(broker))
    with pytest.raises(LogMisconfigured) as caught:
        await log.ensure_topics(
            [
                TopicSpec(work, Cleanup.TRIM, 3),
                TopicSpec(state, Cleanup.COMPACT, 1),
                TopicSpec(kept, Cleanup.EXPIRE, 1, 2 * HOUR),
                TopicSpec(fine, Cleanup.EXPIRE, 1, 2 * HOUR),
            ]
        )
    text = str(caught.value)
    assert f"{work} has 1 partitions, must have 3" in text
    assert f"{work} has retention.ms=60000, set it to -1" in text
    assert f"{work} has retention.bytes=1000000, set it to -1" in text
    assert f"{work} has unclean.leader.election.enable=true, set it to false" in text
    assert f"{work} has max.message.bytes=100000, set it to 1048588" in text
    assert f"{state} has cleanup.policy=delete, set it to compact" in text
    assert f"{kept} has retention.ms={HOUR}, set it to {2 * HOUR}" in text
    assert fine not in text
    await log.close()


async def test_too_few_copies_are_named(broker: Kafka, admin: AIOKafkaAdminClient) -> None:
    topic = name()
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"retention.ms": "-1"})])
    log = await started(settings_for(broker, copies=3, in_sync=2))
    with pytest.raises(LogMisconfigured) as caught:
        await log.ensure_topics([TopicSpec(topic, Cleanup.TRIM, 1)])
    assert f"{topic} has replication factor 1, must have 3" in str(caught.value)
    assert f"{topic} has min.insync.replicas=1, set it to 2" in str(caught.value)
    missing = name()
    with pytest.raises(LogMisconfigured, match=f"{missing} cannot be created: .*[Rr]eplication factor"):
        await log.ensure_topics([TopicSpec(missing, Cleanup.TRIM, 1)])
    await log.close()


async def test_missing_topics_are_named_where_none_may_be_created(broker: Kafka) -> None:
    log = await started(settings_for(broker, create=False))
    topic = name()
    with pytest.raises(LogMisconfigured, match=rf"{topic} is missing: kafka-topics --create --topic {topic} "):
        await log.ensure_topics([TopicSpec(topic, Cleanup.TRIM, 1)])
    await log.close()


async def test_several_processes_may_create_at_once(broker: Kafka) -> None:
    import asyncio

    specs = [TopicSpec(name(), Cleanup.TRIM, 2) for _ in range(5)]
    logs = [await started(settings_for(broker)) for _ in range(3)]
    await asyncio.gather(*(log.ensure_topics(specs) for log in logs))
    for log in logs:
        await log.close()


async def test_three_brokers_need_no_warning(tmp_path: Path) -> None:
    with Kafka(tmp_path, nodes=3) as kafka:
        log = await started(settings_for(kafka, copies=3, in_sync=2))
        assert await log.ensure_topics([TopicSpec("work", Cleanup.TRIM, 6)]) == []
        assert await log.append(Entry("work", b"value", partition=5), LIMIT) == (5, 0)
        await log.close()
        careless = await started(settings_for(kafka, copies=1))
        [warning] = await careless.ensure_topics([TopicSpec("other", Cleanup.TRIM, 1)])
        assert "replicationFactor is 1" in warning
        await careless.close()


# -- secured listeners


def certificate(folder: Path) -> tuple[str, Path]:
    """Make a certificate for 127.0.0.1: its key and itself in PEM for the broker, and the file for clients."""
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "broker.pem").write_bytes(private + pem)
    (folder / "ca.pem").write_bytes(pem)
    return str(folder / "broker.pem"), folder / "ca.pem"


def add_scram_user(port: int, user: str, password: str) -> None:
    """AlterUserScramCredentials v0 (a flexible request): one upsertion for SCRAM-SHA-512 (mechanism 2)."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 4096)

    def compact(data: bytes) -> bytes:
        return bytes([len(data) + 1]) + data

    body = b"\x01" + b"\x02" + compact(user.encode()) + struct.pack(">bi", 2, 4096)
    body += compact(salt) + compact(salted) + b"\0" + b"\0"
    request = struct.pack(">hhih", 51, 0, 1, -1) + b"\0" + body
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.recv(4096)
    # Size, correlation id, tags, throttle time, one result: its user and error code.
    user_field = answer.index(compact(user.encode()))
    assert struct.unpack_from(">h", answer, user_field + len(user) + 1) == (0,)


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[Kafka, int, Path]]:
    """A broker with a third listener, with TLS and SCRAM-SHA-512: the broker, that port, and the CA's file."""
    keys, authority = certificate(tmp_path)
    port, mutual = ports.reserve(), ports.reserve()
    (tmp_path / "mutual").write_text(str(mutual))
    kafka = Kafka(tmp_path)
    settings = kafka.nodes[0].folder / "server.properties"
    lines = []
    for line in settings.read_text().splitlines():
        key, _, value = line.partition("=")
        match key:
            case "listeners" | "advertised.listeners":
                value += f",SASL_SSL://127.0.0.1:{port},SSL://127.0.0.1:{mutual}"
            case "listener.security.protocol.map":
                value += ",SASL_SSL:SASL_SSL,SSL:SSL"
        lines.append(f"{key}={value}")
    lines += [
        "ssl.keystore.type=PEM",
        f"ssl.keystore.location={keys}",
        "ssl.truststore.type=PEM",
        f"ssl.truststore.location={authority}",
        "listener.name.ssl.ssl.client.auth=required",
        "sasl.enabled.mechanisms=SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config="
        "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    ]
    settings.write_text("\n".join(lines) + "\n")
    with kafka:
        add_scram_user(kafka.nodes[0].port, "gatepost", "s3cret")
        yield kafka, port, authority
    ports.release(port)
    ports.release(mutual)


async def test_tls_and_scram(secured: tuple[Kafka, int, Path], tmp_path: Path) -> None:
    _, port, authority = secured
    password = tmp_path / "password"
    password.write_text("s3cret\n")
    settings = KafkaSettings(
        bootstrap_servers=(f"127.0.0.1:{port}",),
        replication_factor=1,
        min_insync_replicas=1,
        security=KafkaSecurity.TLS,
        ca_file=str(authority),
        username="gatepost",
        password_file=str(password),
    )
    log = await started(settings)
    await log.ensure_topics([TopicSpec("work", Cleanup.TRIM, 1)])
    await log.append(Entry("work", b"value"), LIMIT)
    consumer = log.consumer("work", "group", window=1)
    await consumer.start()
    records: list[object] = []
    while not records:
        records += await consumer.fetch(LIMIT)
    await consumer.close()
    await log.close()


@pytest.mark.parametrize("with_certificate", [True, False])
async def test_mutual_tls(secured: tuple[Kafka, int, Path], tmp_path: Path, with_certificate: bool) -> None:
    _, _, authority = secured
    own = str(tmp_path / "broker.pem") if with_certificate else ""
    settings = KafkaSettings(
        bootstrap_servers=(f"127.0.0.1:{(tmp_path / 'mutual').read_text()}",),
        replication_factor=1,
        min_insync_replicas=1,
        security=KafkaSecurity.TLS,
        ca_file=str(authority),
        certificate_file=own,
        key_file=own,
    )
    log = KafkaLog(settings, client_id="test")
    if not with_certificate:
        with pytest.raises(LogUnavailable):
            await log.start()
    else:
        await log.start()
        await log.ensure_topics([TopicSpec("work", Cleanup.TRIM, 1)])
        await log.append(Entry("work", b"value"), LIMIT)
    await log.close()


@pytest.mark.parametrize("wrong", ["password", "certificate", "no password file", "no CA file"])
async def test_what_is_wrong_with_the_security_is_an_error(
    secured: tuple[Kafka, int, Path], tmp_path: Path, wrong: str
) -> None:
    _, port, authority = secured
    password = tmp_path / "password"
    password.write_text("wrong" if wrong == "password" else "s3cret")
    other = tmp_path / "other"
    other.mkdir()
    ca = certificate(other)[1] if wrong == "certificate" else authority
    settings = KafkaSettings(
        bootstrap_servers=(f"127.0.0.1:{port}",),
        security=KafkaSecurity.TLS,
        ca_file=str(tmp_path / "missing") if wrong == "no CA file" else str(ca),
        username="gatepost",
        password_file=str(tmp_path / "missing") if wrong == "no password file" else str(password),
    )
    log = KafkaLog(settings, client_id="test")
    with pytest.raises(LogUnavailable) as caught:
        await log.start()
    assert "s3cret" not in str(caught.value)
    assert base64.b64encode(b"s3cret").decode() not in repr(caught.value.__cause__)
    await log.close()
