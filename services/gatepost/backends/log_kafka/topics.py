"""Creating the topics, and checking what others have made of them: settings decide whether 250 means durable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from gatepost.backends.log_kafka.connection import Cluster, Connection
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.ports.log import Cleanup, LogMisconfigured, TopicSpec

LIMIT: Final = 30.0
# Kafka's default of message.max.bytes: a piece of a body (900 KB) with its headers fits.
_MESSAGE_BYTES: Final = 1_048_588
# The newest segment is never compacted: in a small topic nothing would be for a week.
_COMPACT_SEGMENT_BYTES: Final = 16 * 1024 * 1024
_COMPACT_SEGMENT_MS: Final = 3_600_000
_ALREADY_EXISTS: Final = 36


async def ensure(connection: Connection, settings: KafkaSettings, specs: Sequence[TopicSpec]) -> Sequence[str]:
    """Do what Log.ensure_topics says."""
    names = [spec.name for spec in specs]
    cluster = await connection.call("looking up topics", LIMIT, lambda: connection.cluster(names))
    missing = [spec for spec in specs if spec.name not in cluster.topics]
    if missing and settings.create_topics:
        await _create(connection, settings, missing)
        cluster = await connection.call(
            "waiting for new topics", LIMIT, lambda: _all_there(connection, [spec.name for spec in specs])
        )
        missing = []
    there = [spec for spec in specs if spec.name in cluster.topics]
    configs = await _configs(connection, [spec.name for spec in there]) if there else {}
    wrong = [f"{spec.name} is missing: {_how_to_create(settings, spec)}" for spec in missing]
    for spec in there:
        wrong += _faults(settings, spec, cluster, configs[spec.name])
    if wrong:
        raise LogMisconfigured("; ".join(wrong))
    return _warnings(settings, cluster)


async def _create(connection: Connection, settings: KafkaSettings, specs: Sequence[TopicSpec]) -> None:
    async def work() -> None:
        new = [
            NewTopic(spec.name, spec.partitions, settings.replication_factor, topic_configs=_wanted(settings, spec))
            for spec in specs
        ]
        if connection.client.cluster.controller is None:
            raise for_code(41)("the controller is not known yet")  # NOT_CONTROLLER: ask again
        answer = await connection.admin.create_topics(new, timeout_ms=int(LIMIT * 1000))
        faults = []
        for name, code, *message in answer.topic_errors:
            error = for_code(code)
            if code in (0, _ALREADY_EXISTS):
                continue
            if error.retriable:
                raise error(name)
            faults.append(f"{name} cannot be created: {' '.join(map(str, message)) or error.__name__}")
        if faults:
            raise LogMisconfigured("; ".join(faults))

    await connection.call("creating topics", LIMIT, work)


async def _all_there(connection: Connection, names: Sequence[str]) -> Cluster:
    """Return the metadata once every topic has leaders. Raises a retriable KafkaError before."""
    cluster = await connection.cluster(list(names))
    for name in names:
        partitions = cluster.topics.get(name)
        if not partitions or any(partition.leader < 0 for partition in partitions.values()):
            raise for_code(5)(f"{name} has no leaders yet")
    return cluster


async def _configs(connection: Connection, names: Sequence[str]) -> dict[str, dict[str, str]]:
    async def work() -> dict[str, dict[str, str]]:
        answers = await connection.admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        )
        found = {}
        for answer in answers:
            for code, _, _, name, entries in answer.resources:
                if code:
                    raise for_code(code)(name)
                found[name] = {entry[0]: entry[1] for entry in entries}
        return found

    return await connection.call("reading the settings of topics", LIMIT, work)


def _wanted(settings: KafkaSettings, spec: TopicSpec) -> dict[str, str]:
    """Return the configuration that a topic is created with."""
    wanted = {
        "min.insync.replicas": str(settings.min_insync_replicas),
        "unclean.leader.election.enable": "false",
        "max.message.bytes": str(_MESSAGE_BYTES),
        "retention.bytes": "-1",
        # Ours, in the order of the offsets; a producer's clock means nothing.
        "message.timestamp.type": "LogAppendTime",
    }
    match spec.cleanup:
        case Cleanup.TRIM:
            wanted |= {"cleanup.policy": "delete", "retention.ms": "-1"}
        case Cleanup.EXPIRE:
            wanted |= {"cleanup.policy": "delete", "retention.ms": str(spec.retention_ms)}
        case Cleanup.COMPACT:
            wanted |= {"cleanup.policy": "compact"}
        case Cleanup.COMPACT_EXPIRE:
            wanted |= {"cleanup.policy": "compact,delete", "retention.ms": str(spec.retention_ms)}
    if spec.cleanup in (Cleanup.COMPACT, Cleanup.COMPACT_EXPIRE):
        wanted |= {"segment.bytes": str(_COMPACT_SEGMENT_BYTES), "segment.ms": str(_COMPACT_SEGMENT_MS)}
    return wanted


def _faults(settings: KafkaSettings, spec: TopicSpec, cluster: Cluster, config: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a topic that is there, each with what to set."""
    partitions = cluster.topics[spec.name]
    faults = []
    if len(partitions) < spec.partitions:
        faults.append(
            f"has {len(partitions)} partitions, must have {spec.partitions} (kafka-topics --alter --partitions)"
        )
    fewest = min(partition.replicas for partition in partitions.values())
    if fewest < settings.replication_factor:
        faults.append(
            f"has replication factor {fewest}, must have {settings.replication_factor} "
            "(kafka-reassign-partitions, or lower log.kafka.replicationFactor)"
        )
    faults += [f"has {key}={config.get(key)}, set it to {want}" for key, want in _broken(settings, spec, config)]
    return [f"{spec.name} {fault}" for fault in faults]


def _broken(settings: KafkaSettings, spec: TopicSpec, config: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the settings that break a guarantee, and the values they must have."""
    wanted = _wanted(settings, spec)
    broken = []
    if int(config["min.insync.replicas"]) < settings.min_insync_replicas:
        broken.append("min.insync.replicas")
    if config["unclean.leader.election.enable"] != "false":
        broken.append("unclean.leader.election.enable")
    if int(config["max.message.bytes"]) < _MESSAGE_BYTES:
        broken.append("max.message.bytes")
    # By this time records fall due, expire and are trimmed: a producer's clock may be wrong.
    if spec.cleanup is not Cleanup.COMPACT and config["message.timestamp.type"] != "LogAppendTime":
        broken.append("message.timestamp.type")
    if _policies(config["cleanup.policy"]) != _policies(wanted["cleanup.policy"]):
        broken.append("cleanup.policy")
    elif "delete" in config["cleanup.policy"]:
        # Keeping more than needed harms nobody.
        if _retention(config["retention.ms"]) < _retention(wanted["retention.ms"]):
            broken.append("retention.ms")
        if config["retention.bytes"] != "-1":
            broken.append("retention.bytes")
    return [(key, wanted[key]) for key in broken]


def _policies(text: str) -> set[str]:
    return {policy.strip() for policy in text.split(",")}


def _retention(text: str) -> float:
    return float("inf") if text == "-1" else int(text)


def _how_to_create(settings: KafkaSettings, spec: TopicSpec) -> str:
    configs = " ".join(f"--config {key}={value}" for key, value in _wanted(settings, spec).items())
    return (
        f"kafka-topics --create --topic {spec.name} --partitions {spec.partitions} "
        f"--replication-factor {settings.replication_factor} {configs}, or set log.kafka.createTopics"
    )


def _warnings(settings: KafkaSettings, cluster: Cluster) -> list[str]:
    if len(cluster.brokers) == 1:
        return ["the log is a single Kafka broker: mail accepted with 250 is lost if its disk is lost"]
    if settings.replication_factor == 1:
        return ["log.kafka.replicationFactor is 1: mail accepted with 250 is lost if a broker's disk is lost"]
    if settings.min_insync_replicas == 1:
        return ["log.kafka.minInsyncReplicas is 1: mail accepted with 250 may be on one broker only"]
    return []
