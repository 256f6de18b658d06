"""Creating the embedded log's topics, and what may change about one that is there."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from gatepost.backends.log_sqlite.file import is_compacted
from gatepost.backends.log_sqlite.stream import Stream
from gatepost.core.ports.log import LogMisconfigured, TopicSpec


class Reconciled(msgspec.Struct, frozen=True):
    """The topics as they are now, and the streams that are new."""

    topics: Sequence[TopicSpec]
    added: Sequence[Stream]


def reconcile(
    connection: sqlite3.Connection, specs: Sequence[TopicSpec], existing: Mapping[str, TopicSpec]
) -> Reconciled:
    """Make the topics what `specs` say. More partitions than asked for are left as they are.

    Raises LogMisconfigured naming every topic that cannot be made so; then nothing is changed.
    """
    wrong = [fault for spec in specs if (fault := _fault(spec, existing.get(spec.name)))]
    if wrong:
        raise LogMisconfigured("; ".join(wrong))
    added = []
    topics = []
    for spec in specs:
        there = existing.get(spec.name)
        have = there.partitions if there is not None else 0
        topic = msgspec.structs.replace(spec, partitions=max(have, spec.partitions))
        topics.append(topic)
        if topic == there:
            continue
        connection.execute(
            "INSERT OR REPLACE INTO topics VALUES (?, ?, ?, ?)",
            (topic.name, topic.cleanup.value, topic.partitions, topic.retention_ms),
        )
        for partition in range(have, topic.partitions):
            row = connection.execute(
                "INSERT INTO streams (topic, partition) VALUES (?, ?) RETURNING number", (topic.name, partition)
            ).fetchone()
            added.append(Stream(row[0], topic.name, partition, 0, 0, is_compacted(topic)))
    return Reconciled(topics, added)


def _fault(spec: TopicSpec, there: TopicSpec | None) -> str:
    if there is None:
        return ""
    if there.cleanup is not spec.cleanup:
        return f"{spec.name}: its cleanup is {there.cleanup.value}, it must be {spec.cleanup.value}"
    if there.partitions < spec.partitions and is_compacted(spec):
        # A key would move to another partition, and its older record would never be removed.
        return (
            f"{spec.name}: it has {there.partitions} partitions, which cannot become {spec.partitions}; "
            "set log.partitions back"
        )
    return ""
