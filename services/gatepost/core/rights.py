"""What each service does to which topic and group: what a Kafka cluster must allow its principal, and no more.

docs/operations.md shows this table; a test runs the whole path with these rules alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import msgspec

from gatepost.core.topics import RETRY_TIERS, Topics


class Operation(Enum):
    """Kafka's names. READ, WRITE and DELETE imply DESCRIBE."""

    READ = "READ"
    WRITE = "WRITE"
    DELETE = "DELETE"
    DESCRIBE = "DESCRIBE"
    DESCRIBE_CONFIGS = "DESCRIBE_CONFIGS"


class Right(msgspec.Struct, frozen=True, order=True):
    """One operation on one topic or group."""

    kind: str
    """topic | group"""
    name: str
    operation: str

    def __str__(self) -> str:
        return f"{self.operation} on {self.kind} {self.name}"


def rights_of(service: str, topics: Topics, stores: Sequence[str], store: str = "") -> tuple[Right, ...]:
    """Return what `service` (edge | router | mailbox | relay | publish) needs; nothing for any other.

    `stores` are all stores of the installation, `store` is the one of a mailbox process.
    """
    mailboxes = [f"mailbox.{name}" for name in stores]
    tiers = [f"retry.{tier}" for tier in RETRY_TIERS]
    bodies = ["content.transit", "content.kept"]
    told = ["events", "acks"]
    match service:
        case "edge":
            needs = _Needs(reads=["config", "state"], writes=["accepted", "content.transit", "state", *told])
        case "router":
            needs = _Needs(
                reads=["accepted", "config", *bodies, "relay", *mailboxes, *tiers],
                writes=["accepted", *mailboxes, "relay", "content.kept", "quarantine", *told],
                trims=["accepted", "content.transit"],
                joins=["router"],
                looks_at=["relay", *mailboxes, *tiers],
            )
        case "mailbox":
            own = f"mailbox.{store}"
            needs = _Needs(
                reads=[own, "config", *bodies],
                writes=[own, *tiers, "accepted", "content.kept", "quarantine", *told],
                trims=[own],
                joins=[own],
            )
        case "relay":
            needs = _Needs(
                reads=["relay", *tiers, "config", *bodies],
                writes=["relay", *mailboxes, *tiers, "accepted", *bodies, "quarantine", *told],
                trims=["relay", *tiers],
                joins=["relay", *tiers],
            )
        case "publish":
            needs = _Needs(reads=["config"], writes=["config"])
        case _:
            return ()
    everywhere = [spec.name for spec in topics.specs(tuple(stores), 1)]
    return needs.rights(topics, everywhere)


class _Needs(msgspec.Struct):
    """Names without prefix."""

    reads: list[str]
    writes: list[str]
    trims: list[str] = []
    joins: list[str] = []
    looks_at: list[str] = []

    def rights(self, topics: Topics, everywhere: Sequence[str]) -> tuple[Right, ...]:
        found = {Right("topic", name, Operation.DESCRIBE_CONFIGS.value) for name in everywhere}
        found |= {Right("topic", name, Operation.DESCRIBE.value) for name in everywhere}
        for names, operation in (
            (self.reads, Operation.READ),
            (self.writes, Operation.WRITE),
            (self.trims, Operation.DELETE),
        ):
            found |= {Right("topic", f"{topics.prefix}{name}", operation.value) for name in names}
        found |= {Right("group", topics.group(name), Operation.READ.value) for name in self.joins}
        found |= {Right("group", topics.group(name), Operation.DESCRIBE.value) for name in self.looks_at}
        return tuple(sorted(found))
