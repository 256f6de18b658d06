"""How fast the logs append and read: records per second and CPU microseconds per record.

    PYTHONPATH=services:tools python benchmarks/log_append.py [sqlite] [kafka] [--records N] [--partitions N]

Records are 4 KB with an envelope of 600 bytes. The CPU is this process's alone (client and event loop; for
SQLite everything); a broker's is not counted. Kafka acknowledges when the brokers have the record in memory
(here one broker); SQLite when the disk has it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import uvloop

from gatepost.backends.log_kafka import KafkaLog
from gatepost.backends.log_sqlite import SqliteLog
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.ports.log import Cleanup, Entry, Log, TopicSpec
from testbed.kafka import Kafka

VALUE = os.urandom(4096)
HEADERS = (("envelope", os.urandom(600)), ("traceparent", os.urandom(55)))
SENDERS = (1, 50, 200)
LIMIT = 30.0


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measured(name: str, records: int, work: Callable[[], Awaitable[None]]) -> None:
    wall, before = time.perf_counter(), cpu()
    await work()
    wall, used = time.perf_counter() - wall, cpu() - before
    print(f"{name:<36} {records / wall:>9,.0f}/s {used / records * 1e6:>7.0f} us CPU", flush=True)


async def append(log: Log, topic: str, senders: int, records: int) -> None:
    async def sender() -> None:
        for _ in range(records // senders):
            await log.append(Entry(topic, VALUE, None, HEADERS), LIMIT)

    await asyncio.gather(*(sender() for _ in range(senders)))


async def append_in_pairs(log: Log, topic: str, senders: int, records: int) -> None:
    async def sender() -> None:
        for _ in range(records // senders // 2):
            await log.append_many([Entry(topic, VALUE, b"key", HEADERS)] * 2, LIMIT)

    await asyncio.gather(*(sender() for _ in range(senders)))


async def consume(log: Log, topic: str, records: int) -> None:
    consumer = log.consumer(topic, "benchmark", window=500)
    await consumer.start()
    left = records
    while left:
        for record in await consumer.fetch(1.0):
            consumer.finish(record)
            left -= 1
    await consumer.close()


async def run(name: str, log: Log, records: int, partitions: int) -> None:
    await log.start()
    await log.ensure_topics([TopicSpec("bench", Cleanup.TRIM, partitions)])
    await append(log, "bench", 50, 2000)  # warm
    total = 2000
    for senders in SENDERS:
        count = records if senders > 1 else records // 10
        await measured(f"{name}, {senders} senders", count, lambda s=senders, n=count: append(log, "bench", s, n))  # type: ignore[misc]
        total += count
    await measured(f"{name}, 50 senders, two at once", records, lambda: append_in_pairs(log, "bench", 50, records))
    total += records
    await measured(f"{name}, consume", total, lambda: consume(log, "bench", total))
    await log.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("logs", nargs="*", default=["sqlite", "kafka"])
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--partitions", type=int, default=12)
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".benchmark-")))
        for name in chosen.logs:
            log: Log
            if name == "sqlite":
                log = SqliteLog(folder / "log.sqlite3")
            else:
                broker = stack.enter_context(Kafka(folder))
                servers = tuple(broker.bootstrap.split(","))
                log = KafkaLog(
                    KafkaSettings(bootstrap_servers=servers, replication_factor=1, min_insync_replicas=1),
                    client_id="benchmark",
                )
            uvloop.run(run(name, log, chosen.records, chosen.partitions))


if __name__ == "__main__":
    main()
