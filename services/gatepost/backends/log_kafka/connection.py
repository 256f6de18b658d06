"""One connection to the cluster for everything but records in and out of groups, and how any client connects."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import OffsetAndMetadata, PartitionMetadata, TopicPartition

from gatepost.core.manifest.quantities import seconds
from gatepost.core.manifest.settings import KafkaSecurity, KafkaSettings
from gatepost.core.ports.log import LogMisconfigured, LogUnavailable

T = TypeVar("T")

_log = structlog.get_logger(__name__)

# How much longer than a group's session a client waits for one answer: the group's rebalance may take a session (of
# a dead member), and every second more is one that a broker that hangs holds up its records when others have them.
_REQUEST_OVER_SESSION_MS: Final = 1_500
START_SECONDS: Final = 15.0
_BACKOFF_SECONDS: Final = 0.1
_CLOSE_SECONDS: Final = 2.0


def client_options(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    """Return the options by which any of aiokafka's clients connects. Raises LogUnavailable (unreadable files)."""
    options: dict[str, Any] = {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": client_id,
        "request_timeout_ms": request_ms(settings),
        "security_protocol": security_protocol(settings),
    }
    try:
        if settings.security is KafkaSecurity.TLS:
            options["ssl_context"] = _tls(settings)
        login = credentials(settings)
        if login is not None:
            options["sasl_mechanism"] = settings.sasl_mechanism.value
            options["sasl_plain_username"], options["sasl_plain_password"] = login
    except (OSError, ValueError) as error:
        raise unusable(error) from error
    return options


def request_ms(settings: KafkaSettings) -> int:
    """How long a client waits for one answer."""
    return int(seconds(settings.session_timeout) * 1000) + _REQUEST_OVER_SESSION_MS


def security_protocol(settings: KafkaSettings) -> str:
    """Kafka's own name for whether there is TLS, and whether SASL."""
    login = "SASL_" if _has_login(settings) else ""
    return login + ("SSL" if settings.security is KafkaSecurity.TLS else "PLAINTEXT")


def credentials(settings: KafkaSettings) -> tuple[str, str] | None:
    """Return name and password for SASL, or None: there is none. Raises OSError, ValueError."""
    if not _has_login(settings):
        return None
    return settings.username or _secret(settings.username_file), _secret(settings.password_file)


def unusable(error: Exception) -> LogUnavailable:
    """Return what to raise where a client cannot be made of the security settings."""
    return LogUnavailable(f"log.kafka: a file of its security settings cannot be used: {error}")


def _has_login(settings: KafkaSettings) -> bool:
    return bool(settings.username or settings.username_file)


def _tls(settings: KafkaSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ca_file or None)
    if settings.certificate_file:
        context.load_cert_chain(settings.certificate_file, settings.key_file)
    return context


def _secret(file: str) -> str:
    return Path(file).read_text().rstrip("\r\n")


class Partition(msgspec.Struct, frozen=True):
    """What the cluster says of one partition."""

    replicas: int
    leader: int


class Cluster(msgspec.Struct, frozen=True):
    """The cluster's id, the numbers of its brokers, and its topics."""

    id: str
    brokers: tuple[int, ...]
    topics: dict[str, dict[int, Partition]]


class Connection:
    """A client for administration, reading by offset, and asking whether the cluster is there."""

    def __init__(self, settings: KafkaSettings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._admin: AIOKafkaAdminClient | None = None
        self._cluster = self._foreign = ""

    async def start(self) -> None:
        """Raises LogUnavailable when no server answers within START_SECONDS."""
        if self._admin is not None:
            return
        admin = AIOKafkaAdminClient(**client_options(self._settings, self._client_id))
        try:
            async with asyncio.timeout(START_SECONDS):
                await admin.start()
        except (TimeoutError, KafkaError, OSError) as error:
            await _close(admin)
            servers = ", ".join(self._settings.bootstrap_servers)
            raise LogUnavailable(f"no Kafka broker answers at {servers}: {error or 'time-out'}") from error
        except BaseException:
            await _close(admin)
            raise
        self._admin = admin

    async def close(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            await _close(admin)

    @property
    def admin(self) -> AIOKafkaAdminClient:
        if self._admin is None:
            raise LogUnavailable("the log is not connected")
        return self._admin

    @property
    def client(self) -> AIOKafkaClient:
        """The client below the administration: aiokafka has no public one that reads by offset."""
        return self.admin._client

    async def call(self, what: str, limit: float, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work`, again after a passing error, for at most `limit` seconds. Raises LogUnavailable.

        `work` must be harmless to repeat.
        """
        reason = ""
        try:
            async with asyncio.timeout(limit):
                while True:
                    try:
                        return await work()
                    except (KafkaError, OSError) as error:
                        reason = repr(error)
                        if not getattr(error, "retriable", True):
                            raise LogUnavailable(f"{what}: {reason}") from error
                        self.refresh()
                        await asyncio.sleep(_BACKOFF_SECONDS)
        except TimeoutError:
            raise LogUnavailable(f"{what}: no success within {limit:g} s{': ' if reason else ''}{reason}") from None

    async def cluster(self, topics: list[str] | None = None) -> Cluster:
        """Ask for the cluster's metadata. Raises KafkaError."""
        node = self.client.get_random_node()
        answer = await self.client.send(node, MetadataRequest(topics, allow_auto_topic_creation=False))
        self._cluster = self._cluster or answer.cluster_id
        found: dict[str, dict[int, Partition]] = {}
        for error, name, _, partitions in answer.topics:
            if error == 3:  # UNKNOWN_TOPIC_OR_PARTITION
                continue
            if error:
                raise for_code(error)(name)
            found[name] = {
                number: Partition(len(replicas), leader) for _, number, leader, replicas, *_ in partitions
            }
        return Cluster(answer.cluster_id, tuple(broker[0] for broker in answer.brokers), found)

    async def partitions(self, topic: str, limit: float) -> tuple[int, ...]:
        """Return a topic's partitions. Raises LogMisconfigured when there is no such topic, LogUnavailable."""
        cluster = await self.call(f"looking up {topic}", limit, lambda: self.cluster([topic]))
        if topic not in cluster.topics:
            raise LogMisconfigured(f"the Kafka cluster has no topic {topic}")
        return tuple(sorted(cluster.topics[topic]))

    def known_partitions(self, topic: str) -> Mapping[int, PartitionMetadata] | None:
        """Return what this client knows of a topic's partitions, by number; None: nothing (see find)."""
        known: dict[int, PartitionMetadata] | None = self.client.cluster._partitions.get(topic)
        return known or None

    async def find(self, topic: str, limit: float) -> None:
        """Have a topic known within `limit` seconds, and kept up to date from then on. Raises LogUnavailable."""
        try:
            async with asyncio.timeout(limit):
                await self.client._wait_on_metadata(topic)
        except TimeoutError:
            raise LogUnavailable(f"{topic} could not be looked up within {limit:g} s") from None
        except KafkaError as error:
            raise LogUnavailable(f"{topic} cannot be looked up: {error!r}") from error

    def refresh(self) -> None:
        """Have partitions and leaders looked up anew: something is not where it was, or is there no more."""
        self.client.force_metadata_update()

    async def commits(
        self, group: str, places: Sequence[TopicPartition] | None
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return what a group has committed, for these partitions or for all. Raises KafkaError.

        Partitions without a commit are left out. The administration's own call takes an answer that is only an
        error (a coordinator that is still reading its log) for a group without commits, and a group without
        commits begins at the start.
        """
        topics: dict[str, list[int]] = {}
        for place in places or ():
            topics.setdefault(place.topic, []).append(place.partition)
        node = await self.admin.find_coordinator(group)
        request = OffsetFetchRequest(group, None if places is None else list(topics.items()))
        answer = await self.client.send(node, request)
        if answer.error_code:
            raise for_code(answer.error_code)(group)
        found = {}
        for topic, partitions in answer.topics:
            for partition, offset, metadata, error in partitions:
                if error:
                    raise for_code(error)(group)
                found[TopicPartition(topic, partition)] = OffsetAndMetadata(offset, metadata or "")
        if not found.keys() >= set(places or ()):
            raise for_code(14)(f"the answer on {group} is not complete")  # GROUP_LOAD_IN_PROGRESS: ask again
        return {place: commit for place, commit in found.items() if commit.offset >= 0}

    async def leader(self, partition: TopicPartition) -> int:
        """Return the broker that leads a partition, as far as the client knows. Raises a retriable KafkaError."""
        client = self.client
        if client.cluster.partitions_for_topic(partition.topic) is None:
            # An empty list asks for all topics; from now on it asks for those that were needed.
            await client.add_topic(partition.topic)
        leader = client.cluster.leader_for_partition(partition)
        if leader is None or leader == -1:
            raise _no_leader(partition)
        return int(leader)

    async def answers(self, node: int, limit: float) -> bool:
        """Whether a broker answers within `limit` seconds; if not, its connection is given up."""
        client = self.client
        try:
            async with asyncio.timeout(limit):
                answer = await client.send(node, MetadataRequest([], allow_auto_topic_creation=False))
        except (TimeoutError, KafkaError, OSError):
            for (number, _), connection in list(client._conns.items()):
                if number == node:
                    connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
            return False
        return self._is_the_same(answer.cluster_id)

    def _is_the_same(self, cluster: str) -> bool:
        """Whether the answer is of the cluster that this process has worked with: nothing goes into another one."""
        self._cluster = self._cluster or cluster
        if cluster == self._cluster:
            self._foreign = ""
        elif cluster != self._foreign:
            self._foreign = cluster
            servers = ", ".join(self._settings.bootstrap_servers)
            _log.critical("another kafka cluster answers", servers=servers, was=self._cluster, found=cluster)
        return not self._foreign

    def nodes(self) -> list[int]:
        """The brokers that are known."""
        return [broker.nodeId for broker in self.client.cluster.brokers()]


def _no_leader(partition: TopicPartition) -> KafkaError:
    error: KafkaError = for_code(5)(f"{partition.topic}/{partition.partition} has no leader")
    return error


async def _close(admin: AIOKafkaAdminClient) -> None:
    with suppress(TimeoutError, KafkaError, OSError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await admin.close()
