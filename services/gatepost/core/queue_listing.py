"""What waits in the work topics, as an administrator wants to see it: by topic, by where it goes, copy by copy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from gatepost.core.completion import Commit, finished_ranges
from gatepost.core.envelope import Envelope
from gatepost.core.ports.log import Record
from gatepost.core.topics import RETRY_TIERS, Topics


class Waiting(msgspec.Struct, frozen=True):
    """One unfinished record: a message, or a copy for one store or next hop.

    `next_ms` is when it is tried (again); 0: now, or it is worked on already. `reason` is the last reply.
    """

    id: str
    parent: str
    topic: str
    partition: int
    offset: int
    queued_ms: int
    received_ms: int
    sender: str
    recipients: tuple[str, ...]
    size: int
    where: str
    attempts: int = 0
    next_ms: int = 0
    reason: str = ""
    remote: str = ""


class Total(msgspec.Struct, frozen=True):
    """The sum of what waits in one topic, or for one destination. `oldest_ms`: when the oldest was accepted."""

    name: str
    copies: int
    recipients: int
    oldest_ms: int
    attempts: int
    reason: str


def unfinished(records: Iterable[Record], commits: dict[int, Commit]) -> list[Record]:
    """The records that their group has not finished."""
    done = {partition: finished_ranges(commit) for partition, commit in commits.items()}
    return [
        record
        for record in records
        if record.offset >= (commits[record.partition].position if record.partition in commits else 0)
        and not any(record.offset in run for run in done.get(record.partition, ()))
    ]


def waiting(record: Record, envelope: Envelope, topics: Topics) -> Waiting:
    """One line of the list. `record` is of a work topic."""
    deferral = envelope.deferral
    tier = record.topic.removeprefix(topics.retry(""))
    due = record.timestamp_ms + RETRY_TIERS[tier] * 1000 if tier in RETRY_TIERS else 0
    return Waiting(
        id=envelope.id,
        parent=envelope.parent,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        queued_ms=record.timestamp_ms,
        received_ms=envelope.received_ms,
        sender=f"<{envelope.reverse_path}>",
        recipients=tuple(recipient.address for recipient in envelope.recipients),
        size=envelope.size,
        where=_where(envelope),
        attempts=deferral.attempts if deferral else 0,
        next_ms=due,
        reason=deferral.last_reply if deferral else "",
        remote=deferral.remote if deferral else "",
    )


def _where(envelope: Envelope) -> str:
    destination = envelope.destination
    if destination is None:
        return "router"
    if destination.store:
        return f"store {destination.store}"
    return destination.site or destination.domain or ",".join(destination.hosts) or "relay"


def by_topic(everything: Sequence[Waiting]) -> list[Total]:
    return _totals((one.topic, one) for one in everything)


def by_destination(everything: Sequence[Waiting]) -> list[Total]:
    """Who keeps mail waiting, the one with most copies first: a next hop that is overloaded or away, a store."""
    return sorted(_totals((one.where, one) for one in everything), key=lambda total: -total.copies)


def _totals(named: Iterable[tuple[str, Waiting]]) -> list[Total]:
    groups: dict[str, list[Waiting]] = {}
    for name, one in named:
        groups.setdefault(name, []).append(one)
    return [
        Total(
            name,
            len(ones),
            sum(len(one.recipients) for one in ones),
            min(one.received_ms for one in ones),
            max(one.attempts for one in ones),
            max(ones, key=lambda one: one.queued_ms).reason,
        )
        for name, ones in groups.items()
    ]
