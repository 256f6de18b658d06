"""Real Kafka brokers (KRaft, combined broker and controller): one, or three that can be killed one by one.

Started from jars with JVM flags for a short life: serial collector, only the first compiler tier, a small heap
and an archive of loaded classes. Folders are formatted by hand with what Kafka's own format tool writes, since a
JVM for each folder would cost more than the broker's start.

A node that is killed and started again must first let its old session expire, hence the short session time-outs: a
killed one of three stalls its partitions for about 3 to 5 s (about 8 s with Kafka's defaults).
"""

import base64
import os
import shutil
import socket
import struct
import uuid
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path

from testbed import ports
from testbed.network import HERE, Place
from testbed.process import Server, ServerError
from testbed.provision import kafka as provision
from testbed.running import Running

START_SECONDS = 90.0
REQUEST_SECONDS = 10.0
HEAP = ("-Xms64m", "-Xmx256m")
FLAGS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
)
OTHER_CLUSTER_ID = "b3RoZXJvdGhlcm90aGVyMQ"
BOOTSTRAP_RECORDS = "bootstrap.checkpoint"

# Kafka's answer and failover times fit for a test; everything is small since so are the tests.
_PROPERTIES = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "num.partitions": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "controller.quorum.fetch.timeout.ms": "1000",
    "controller.quorum.election.timeout.ms": "500",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "group.coordinator.threads": "1",
    "log.cleaner.dedupe.buffer.size": "8388608",
}


class Operation(IntEnum):
    """What an access rule allows, by Kafka's numbers (AclOperation)."""

    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    DESCRIBE_CONFIGS = 10


class Resource(IntEnum):
    """What an access rule is about, by Kafka's numbers (ResourceType)."""

    TOPIC = 2
    GROUP = 3
    CLUSTER = 4


class Node(Server):
    """One broker; stop, kill9, suspend, start and restart as any server."""

    def __init__(
        self,
        number: int,
        folder: Path,
        properties: Mapping[str, str],
        port: int,
        flags: Sequence[str],
        place: Place,
    ) -> None:
        self.number = number
        self.port = port
        self.place = place
        settings = folder / "server.properties"
        settings.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        jars = provision.install()
        super().__init__(
            f"kafka-{number}",
            [provision.java(), *HEAP, *FLAGS, *flags, "-cp", provision.class_path(jars), "kafka.Kafka", settings],
            folder,
            ports=[port],
            ready=self._is_registered,
            place=place,
            start_seconds=START_SECONDS,
            stop_seconds=30,
        )

    def known_brokers(self) -> set[int]:
        """The numbers of the brokers that this one would name to a client; empty while it can't answer."""
        try:
            return _brokers(self.place, self.port)
        except OSError:
            return set()

    def _is_registered(self) -> bool:
        return self.number in self.known_brokers()


class Kafka(Running):
    """One or three brokers in `folder`, as a context manager; `bootstrap` is ready to use inside.

    `properties` are added to every broker's configuration, for example {"log.flush.interval.messages": "1"}.
    With `users` (name -> password) there is a second listener, `sasl_bootstrap` (SASL_PLAINTEXT, PLAIN), whose
    users may do nothing until `allow` says so; the first listener stays anonymous and all-powerful. `place` is
    where they listen.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int = 1,
        properties: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
        place: Place = HERE,
    ) -> None:
        if nodes not in (1, 3):
            raise ValueError("nodes is 1 or 3")
        archive = provision.class_archive()
        self._setup(folder, nodes, properties or {}, users or {}, place, [f"-XX:SharedArchiveFile={archive}"])

    def _setup(
        self,
        folder: Path,
        nodes: int,
        properties: Mapping[str, str],
        users: Mapping[str, str],
        place: Place,
        flags: Sequence[str],
    ) -> None:
        numbers = range(1, nodes + 1)
        client_ports = [ports.reserve() for _ in numbers]
        quorum_ports = [ports.reserve() for _ in numbers]
        sasl_ports = [ports.reserve() for _ in numbers] if users else []
        self._reserved = [*client_ports, *quorum_ports, *sasl_ports]
        self.bootstrap = _servers(place, client_ports)
        self.sasl_bootstrap = _servers(place, sasl_ports)
        voters = ",".join(f"{n}@{place.address}:{port}" for n, port in zip(numbers, quorum_ports, strict=True))
        self.nodes: list[Node] = []
        for index, number in enumerate(numbers):
            home = folder / f"node{number}"
            home.mkdir(parents=True, exist_ok=True)
            listeners = {"PLAINTEXT": client_ports[index], "CONTROLLER": quorum_ports[index]}
            if users:
                listeners["SASL_PLAINTEXT"] = sasl_ports[index]
            settings = {
                **_PROPERTIES,
                **_replication(nodes),
                **_listeners(place, listeners),
                **(_authorization(users) if users else {}),
                "node.id": str(number),
                "controller.quorum.voters": voters,
                "log.dirs": str(home / "data"),
                **properties,
            }
            _format(home / "data", number)
            self.nodes.append(Node(number, home, settings, client_ports[index], flags, place))

    def start(self) -> None:
        """Starts all nodes side by side; returns when each knows all of them."""
        try:
            for node in self.nodes:
                node.launch()
            for node in self.nodes:
                node.await_ready()
            for node in self.nodes:
                while node.known_brokers() != {other.number for other in self.nodes}:
                    node.await_ready()
        except BaseException:
            self.kill9()
            raise

    def stop(self) -> None:
        """Ends all nodes at once and gives their ports back: the data is not needed any more."""
        self.kill9()
        while self._reserved:
            ports.release(self._reserved.pop())

    def kill9(self) -> None:
        """Kills all nodes; `start` brings them back with what they had stored."""
        for node in self.nodes:
            node.kill9()

    def replace_by_another_cluster(self) -> None:
        """Ends the cluster and starts an empty one with another id at the same addresses."""
        self.kill9()
        for node in self.nodes:
            shutil.rmtree(node.folder / "data")
            _format(node.folder / "data", node.number, OTHER_CLUSTER_ID)
        self.start()

    def suspend(self) -> None:
        """Suspends all nodes: clients connect but get no answer."""
        for node in self.nodes:
            node.suspend()

    def resume(self) -> None:
        """Lets all suspended nodes go on."""
        for node in self.nodes:
            node.resume()

    def allow(
        self,
        user: str,
        operation: Operation,
        resource: Resource,
        name: str,
        *,
        prefix: bool = False,
        deny: bool = False,
    ) -> None:
        """Lets `user` do one thing to one topic or group, or to all whose names start with `name`.

        `deny` forbids it whatever other rules say.
        """
        self._add_rules([_rule(user, operation, resource, name, prefix=prefix, deny=deny)])

    def allow_all(self, user: str, what: Iterable[tuple[Operation, Resource, str]]) -> None:
        """Lets `user` do all these things, in one request: one by one they take 50 ms each."""
        self._add_rules([_rule(user, operation, resource, name) for operation, resource, name in what])

    def _add_rules(self, rules: Sequence[bytes]) -> None:
        # CreateAcls v1; its answer: throttle time, number of results, then each result's error code and message.
        node = next(node for node in self.nodes if node.running)
        answer = _request(node.place, node.port, 30, 1, struct.pack(">i", len(rules)) + b"".join(rules))
        offset = 8
        for _ in rules:
            code, length = struct.unpack_from(">hh", answer, offset)
            offset += 4 + max(length, 0)
            if code:
                raise ServerError(f"the broker refused an access rule: error {code}")


def _rule(
    user: str, operation: Operation, resource: Resource, name: str, *, prefix: bool = False, deny: bool = False
) -> bytes:
    pattern = 4 if prefix else 3  # PREFIXED, LITERAL
    rule = struct.pack(">b", resource) + _string(name) + struct.pack(">b", pattern)
    return rule + _string(f"User:{user}") + _string("*") + struct.pack(">bb", operation, 2 if deny else 3)


def record_classes(folder: Path, archive: Path) -> None:
    """Runs one broker to record in `archive` which classes it loads, and stops it in peace (which writes it)."""
    kafka = Kafka.__new__(Kafka)
    kafka._setup(folder, 1, {}, {}, HERE, [f"-XX:ArchiveClassesAtExit={archive}"])
    try:
        kafka.start()
        kafka.nodes[0].stop()
    finally:
        kafka.stop()
    if not archive.is_file():
        raise ServerError(f"the JVM wrote no class archive\n{kafka.nodes[0].log_tail()}")


def _servers(place: Place, client_ports: Sequence[int]) -> str:
    return ",".join(f"{place.address}:{port}" for port in client_ports)


def _replication(nodes: int) -> dict[str, str]:
    copies, in_sync = ("3", "2") if nodes == 3 else ("1", "1")
    return {
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
    }


def _listeners(place: Place, by_name: Mapping[str, int]) -> dict[str, str]:
    listeners = [f"{name}://{place.address}:{port}" for name, port in by_name.items()]
    protocols = [f"{name}:{'PLAINTEXT' if name == 'CONTROLLER' else name}" for name in by_name]
    return {
        "listeners": ",".join(listeners),
        "advertised.listeners": ",".join(text for text in listeners if not text.startswith("CONTROLLER")),
        "listener.security.protocol.map": ",".join(protocols),
    }


def _authorization(users: Mapping[str, str]) -> dict[str, str]:
    passwords = " ".join(f'user_{name}="{password}"' for name, password in users.items())
    return {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": (
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {passwords};"
        ),
    }


def _format(data: Path, number: int, cluster_id: str = provision.CLUSTER_ID) -> None:
    """Writes what `StorageTool format` writes into an empty data folder; leaves a formatted one alone."""
    if (data / "meta.properties").exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    directory_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    (data / BOOTSTRAP_RECORDS).write_bytes((provision.formatted() / BOOTSTRAP_RECORDS).read_bytes())
    (data / "meta.properties").write_text(
        f"version=1\ncluster.id={cluster_id}\nnode.id={number}\ndirectory.id={directory_id}\n"
    )


def _brokers(place: Place, port: int) -> set[int]:
    """Asks for metadata without topics (Metadata v4) and returns the numbers of the brokers in the answer."""
    answer = _request(place, port, 3, 4, struct.pack(">i?", 0, False))
    count = struct.unpack_from(">i", answer, 4)[0]
    offset = 8
    found = set()
    for _ in range(count):
        number, length = struct.unpack_from(">ih", answer, offset)
        offset += 6 + length + 4  # host, port
        rack = struct.unpack_from(">h", answer, offset)[0]
        offset += 2 + max(rack, 0)
        found.add(number)
    return found


def _request(place: Place, port: int, key: int, version: int, body: bytes) -> bytes:
    """Sends one request with a version-1 header and returns the answer after its correlation id."""
    message = struct.pack(">hhi", key, version, 1) + _string(f"testbed-{os.getpid()}") + body
    with place.connect(port, REQUEST_SECONDS) as connection:
        connection.sendall(struct.pack(">i", len(message)) + message)
        size = struct.unpack(">i", _exactly(connection, 4))[0]
        return _exactly(connection, size)[4:]


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ConnectionError("the broker closed the connection")
        data += piece
    return data


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">h", len(data)) + data
