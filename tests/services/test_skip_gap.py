"""`gatepost skip-gap` on the embedded log, and what a process does while a record is gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gatepost.backends.log_sqlite import SqliteLog
from gatepost.cli.main import main
from gatepost.core.ports.log import Cleanup, Consumer, Entry, Record, TopicSpec
from gatepost.telemetry import metrics
from gatepost.work.loop import WorkLoop

WAIT_S = 10.0


async def gap_in(state: Path) -> None:
    """A log whose router is at offset 2 of accepted/0, where the records below 7 were removed."""
    log = SqliteLog(state / "log.sqlite3")
    await log.start()
    await log.ensure_topics([TopicSpec("accepted", Cleanup.TRIM, 2)])
    for number in range(10):
        await log.append(Entry("accepted", b"%d" % number, partition=0), WAIT_S)
    consumer = log.consumer("accepted", "router", window=2)
    await consumer.start()
    for record in await consumer.fetch(WAIT_S):
        consumer.finish(record)
    await consumer.close()
    await log.trim("accepted", 0, 7)
    await log.close()


def settings(tmp_path: Path) -> Path:
    file = tmp_path / "gatepost.yaml"
    file.write_text(json.dumps({"log": {"sqlite": {}}, "state": str(tmp_path / "state")}))
    return file


def test_what_is_skipped_is_said_and_needs_a_yes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(gap_in(tmp_path / "state"))
    words = ["skip-gap", "--topic", "accepted", "--partition", "0", "--config", str(settings(tmp_path))]
    assert main(words) == 1
    assert "the group is at offset 2: it holds 7 to 9. 5 records are gone." in capsys.readouterr().out
    assert main(words) == 1, "nothing was changed"
    assert main([*words, "--yes"]) == 0
    assert "The group router reads on at offset 7." in capsys.readouterr().out
    assert main([*words, "--yes"]) == 1
    assert "nothing is missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("topic", "partition", "said"),
    [("content.transit", "0", "no work topic"), ("accepted", "9", "has no partition 9")],
)
def test_what_cannot_be_meant_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], topic: str, partition: str, said: str
) -> None:
    asyncio.run(gap_in(tmp_path / "state"))
    words = ["skip-gap", "--topic", topic, "--partition", partition, "--config", str(settings(tmp_path)), "--yes"]
    assert main(words) == 2
    assert said in capsys.readouterr().err


async def test_a_gap_stops_its_partition_and_no_other(world: Any, running: Any) -> None:
    """It is told, not ready, and counted; nothing behind the gap is read. Fails when a reader goes on by itself."""
    topic, seen = world.topics.relay, list[tuple[int, bytes]]()

    async def handle(consumer: Consumer, records: Sequence[Record]) -> None:
        for record in records:
            seen.append((record.partition, record.value))
            consumer.finish(record)

    for number in range(5):
        await world.log.append(Entry(topic, b"%d" % number, partition=0), WAIT_S)
    consumer = world.log.consumer(topic, "g", window=1)
    await consumer.start()
    await consumer.fetch(WAIT_S)
    await consumer.commit()
    await consumer.close()
    await world.log.trim(topic, 0, 3)
    loop = WorkLoop(world.log, topic, "g", handle, world.quarantine)
    async with running(loop), asyncio.timeout(WAIT_S):
        while loop.gap is None:
            await asyncio.sleep(0.01)
        await world.log.append(Entry(topic, b"other", partition=1), WAIT_S)
        while not seen:
            await asyncio.sleep(0.01)
        assert loop.gap is not None
        assert f"{topic}/0: group g is at offset 0" in loop.gap
        assert metrics.LOG_GAPS.current()[(topic,)] == 1
    assert seen == [(1, b"other")]
    assert await world.log.committed(topic, "g") == {0: 0, 1: 1}
