"""What waiting mail costs the mail that moves: CPU per message beside a few and beside very many deferred copies.

Two installations on one broker, alike but for what lies in their retry topics, take the same load in turn, so that
both see the same machine. Nothing that waits falls due before the end: the shortest tier used is half an hour.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
from process_tree import cpu_seconds, resident_mib
from rows import Row, Sample
from systems import PARTITIONS, GatepostOnKafka

from gatepost.backends.log_kafka import KafkaLog
from gatepost.core.envelope import VERSION, Client, Deferral, Destination, Envelope, Recipient
from gatepost.core.ids import derive_id, new_id
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.ports.log import Entry
from gatepost.core.records import work_entry
from gatepost.core.topics import RETRY_TIERS, Topics
from testbed.kafka import Kafka

FEW: Final = 1000
MANY: Final = 1_000_000
MANY_QUICK: Final = 50_000
TARGET: Final = 1.10
# How many wait in a tier goes by how long they wait there, as with a steady stream of copies that fail.
TIERS: Final = ("30m", "1h", "2h", "4h")
SITES: Final = 5000
BODY: Final = b"Subject: deferred\r\n\r\n" + b"The quick brown fox jumps over the lazy dog.\r\n" * 10
BATCH: Final = 500
APPEND_LIMIT_S: Final = 60.0
# After it is ready a relay still joins its groups and reads what is first in each partition.
SETTLE_S: Final = 10.0
_AGE_MS: Final = 3_600_000


class Start(msgspec.Struct, frozen=True):
    """The start of a relay beside so many waiting copies: CPU until ready and so long after, and its memory."""

    waiting: int
    seconds_until_ready: float
    cpu_until_ready_s: float
    cpu_settling_s: float
    resident_mib: float
    fill_seconds: float


class Deferred(msgspec.Struct):
    """The samples of both installations, round by round, and how their relays started."""

    few: str
    many: str
    starts: list[Start]
    row: Row


def prepare(own: GatepostOnKafka, kafka: Kafka, waiting: int) -> Start:
    """Put `waiting` copies into the retry topics of an installation, then start its relay."""
    begun = time.monotonic()
    topics = Topics(f"{own.name}.")
    asyncio.run(_fill(kafka, topics, waiting))
    filled = time.monotonic() - begun
    relay = own.installation.add("relay", "relay")
    begun = time.monotonic()
    relay.start()
    ready = time.monotonic() - begun
    until_ready = cpu_seconds({"relay": relay.pid})["relay"]
    time.sleep(SETTLE_S)
    settled = cpu_seconds({"relay": relay.pid})["relay"]
    return Start(waiting, ready, until_ready, settled - until_ready, resident_mib(relay.pid), filled)


async def _fill(kafka: Kafka, topics: Topics, waiting: int) -> None:
    settings = KafkaSettings(
        bootstrap_servers=tuple(kafka.bootstrap.split(",")), replication_factor=1, min_insync_replicas=1
    )
    log = KafkaLog(settings, client_id="gatepost-bench-fill")
    await log.start()
    try:
        for batch in _batches(topics, waiting):
            await log.append_many(batch, APPEND_LIMIT_S)
    finally:
        await log.close()


def _batches(topics: Topics, waiting: int) -> Iterator[Sequence[Entry]]:
    whole = sum(RETRY_TIERS[tier] for tier in TIERS)
    left = waiting
    for tier in TIERS:
        count = left if tier == TIERS[-1] else waiting * RETRY_TIERS[tier] // whole
        left -= count
        for first in range(0, count, BATCH):
            # Side by side in a partition: one batch for the broker.
            partition = first // BATCH % PARTITIONS
            yield [
                msgspec.structs.replace(_copy(topics, tier, number), partition=partition)
                for number in range(first, min(first + BATCH, count))
            ]


def _copy(topics: Topics, tier: str, number: int) -> Entry:
    """A copy as the relay defers it (core/retry.py), its small body inline."""
    received = time.time_ns() // 1_000_000 - _AGE_MS
    parent = new_id(received)
    site = f"mx.site{number % SITES}.example"
    address = f"user{number}@site{number % SITES}.example"
    recipient = Recipient(address, derive_id(parent, address, "relay"))
    envelope = Envelope(
        v=VERSION,
        id=recipient.id,
        reverse_path="alice@example.test",
        recipients=(recipient,),
        received_ms=received,
        size=len(BODY),
        client=Client("192.0.2.1", 40000, "client.example.test", login="alice", listener="submission"),
        prepend=(
            "Received: from client.example.test ([192.0.2.1]) by mx.example.test (Gatepost) with ESMTPSA\r\n"
            f"\tid {parent} for <{address}>; Sun, 1 Feb 2026 12:00:00 +0000\r\n"
        ),
        parent=parent,
        destination=Destination(domain=f"site{number % SITES}.example", site=site),
        deferral=Deferral(3, received, "451 4.4.1 no answer within 30 s", site, topics.relay),
    )
    return work_entry(topics.retry(tier), envelope, BODY, None, site.encode())


def pair_ratios(deferred: Deferred, *, broker: bool) -> list[float]:
    """CPU per message beside many divided by that beside few, for each round; with or without the broker's."""
    few, many = (deferred.row.samples[name] for name in (deferred.few, deferred.many))
    return [_us(more, broker) / _us(less, broker) for more, less in zip(many, few, strict=True)]


def medians(deferred: Deferred, *, broker: bool) -> Mapping[str, float]:
    """Microseconds of CPU per message, the median of the rounds, by installation."""
    return {
        name: statistics.median(_us(sample, broker) for sample in samples)
        for name, samples in deferred.row.samples.items()
    }


def _us(sample: Sample, broker: bool) -> float:
    return sum(us for role, us in sample.us.items() if broker or role != "broker")
