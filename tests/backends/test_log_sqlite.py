"""The embedded log beyond the contract: one process, kill -9, full disks, damage, and not growing for ever."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gatepost.backends.log_sqlite import SqliteLog, upkeep
from gatepost.backends.log_sqlite import log as sqlite_log
from gatepost.core.ports.log import (
    Cleanup,
    Entry,
    LogError,
    LogMisconfigured,
    LogUnavailable,
    LogUnknown,
    TopicSpec,
)

LIMIT = 30.0
WORK = TopicSpec("work", Cleanup.TRIM, 1)

WRITER = """
import asyncio, json, sys
from pathlib import Path
from gatepost.backends.log_sqlite import SqliteLog
from gatepost.core.ports.log import Cleanup, Entry, TopicSpec

async def main(path):
    log = SqliteLog(Path(path))
    await log.start()
    await log.ensure_topics([TopicSpec("work", Cleanup.TRIM, 3)])
    async def sender(name):
        number = 0
        while True:
            value = f"{name}.{number}"
            position = await log.append(Entry("work", value.encode() * 100), 30)
            print(json.dumps([value, *position]), flush=True)
            number += 1
    await asyncio.gather(*(sender(name) for name in range(20)))

asyncio.run(main(sys.argv[1]))
"""


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "log.sqlite3"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def log(path: Path, clock: Clock) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(path, clock=clock)
    await log.start()
    await log.ensure_topics([WORK])
    yield log
    await log.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0.02)


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)


def size_of(path: Path) -> int:
    return path.stat().st_size


async def fill(log: SqliteLog, topic: str, count: int, size: int = 10) -> None:
    await log.append_many([Entry(topic, b"x" * size, partition=0)] * count, LIMIT)


async def test_what_was_acknowledged_survives_kill_9(path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WRITER,
        str(path),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    acknowledged = []
    async with asyncio.timeout(LIMIT):
        while len(acknowledged) < 2000:
            acknowledged.append(json.loads(await process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
        while line := await process.stdout.readline():
            if line.endswith(b"\n"):
                acknowledged.append(json.loads(line))
    await process.wait()
    log = SqliteLog(path)
    await log.start()
    for value, partition, offset in acknowledged:
        [record] = await log.read("work", partition, [offset], LIMIT)
        assert record.value == value.encode() * 100
    for partition in range(3):  # dense: no offset was skipped or given out twice
        end = log.end_of("work", partition)
        assert len(await log.read("work", partition, range(end), LIMIT)) == end
    await log.close()


async def test_a_second_process_is_told_who_has_it(log: SqliteLog, path: Path) -> None:
    other = SqliteLog(path)
    with pytest.raises(LogUnavailable, match=rf"in use by another process \(pid {os.getpid()}\)"):
        await other.start()
    await other.close()
    assert log.available
    await log.append(Entry("work", b"value"), LIMIT)


async def test_it_can_be_opened_again_after_a_failed_start(path: Path) -> None:
    first, second = SqliteLog(path), SqliteLog(path)
    await first.start()
    with pytest.raises(LogUnavailable):
        await second.start()
    await first.close()
    await second.start()
    assert second.available
    await second.close()


async def test_mail_is_readable_by_its_owner_only(log: SqliteLog, path: Path) -> None:
    await log.append(Entry("work", b"value"), LIMIT)
    names = sorted(file.name for file in path.parent.iterdir())
    assert names[:2] == ["log.sqlite3", "log.sqlite3-shm"]
    assert all(file.stat().st_mode & 0o077 == 0 for file in path.parent.iterdir())


async def test_damage_is_named(path: Path) -> None:
    log = SqliteLog(path)
    await log.start()
    await log.ensure_topics([WORK])
    await fill(log, "work", 500, 3000)
    await log.close()
    with path.open("r+b") as file:
        file.seek(40 * 4096)
        file.write(os.urandom(20 * 4096))
    damaged = SqliteLog(path)
    with pytest.raises(LogUnavailable, match="is damaged"):
        await damaged.start()
    with pytest.raises(LogUnavailable, match="is damaged"):
        await damaged.start()  # and it let go of the lock


@pytest.mark.parametrize("content", [b"this is no database, but text" * 100, b"SQLite format 3\0" + bytes(50)])
async def test_a_file_that_is_none(path: Path, content: bytes) -> None:
    put(path, content)
    with pytest.raises(LogUnavailable, match=str(path)):
        await SqliteLog(path).start()


async def test_the_file_of_another_program(path: Path) -> None:
    put(path, b"")
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE addresses (name TEXT)")
    connection.close()
    with pytest.raises(LogUnavailable, match="another program"):
        await SqliteLog(path).start()


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LogUnavailable, match="cannot be opened"):
        await SqliteLog(tmp_path / "file" / "log.sqlite3").start()


async def test_a_full_disk_refuses_and_recovers_by_itself(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    await log._call(lambda connection: connection.execute("PRAGMA max_page_count = 200"))
    with pytest.raises(LogUnavailable, match="full"):
        for _ in range(100):
            await log.append(Entry("work", b"x" * 100_000), LIMIT)
    assert not log.available
    written = log.end_of("work", 0)
    await asyncio.sleep(2 * sqlite_log.UPKEEP_SECONDS)  # while it is full, it is not said to be available
    assert not log.available
    await log._call(lambda connection: connection.execute("PRAGMA max_page_count = 1000000"))
    await until(lambda: log.available)
    assert await log.append(Entry("work", b"again"), LIMIT) == (0, written)


async def test_all_or_none_of_appends_that_belong_together(log: SqliteLog) -> None:
    await log._call(lambda connection: connection.execute("PRAGMA max_page_count = 200"))
    entries = [Entry("work", b"x" * 100_000)] * 20
    with pytest.raises(LogUnavailable):
        await log.append_many(entries, LIMIT)
    assert log.end_of("work", 0) == 0


async def test_a_failed_sync_leaves_the_outcome_unknown(log: SqliteLog) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    real = log._on_written
    log._writer._on_written = lambda w: real(type(w)(w.appends, w.at_ms, error))  # type: ignore[union-attr]
    with pytest.raises(LogUnknown) as caught:
        await log.append(Entry("work", b"value"), LIMIT)
    with pytest.raises(LogUnknown):
        await caught.value.outcome


async def test_work_topics_are_trimmed_below_what_is_committed(log: SqliteLog) -> None:
    await fill(log, "work", 3000)
    consumer = log.consumer("work", "group", window=5000)
    await consumer.start()
    finished = 0
    while finished < 2500:
        for record in await consumer.fetch(LIMIT):
            if record.offset < 2500:
                consumer.finish(record)
                finished += 1
    await until(lambda: log.start_of("work", 0) == 2500 - upkeep.REPLAY_WINDOW)
    await consumer.close()
    rows = await log._call(lambda connection: connection.execute("SELECT count(*) FROM records").fetchone())
    assert rows == (3000 - 1500,)


async def test_a_topic_that_no_group_has_read_is_not_trimmed(log: SqliteLog) -> None:
    await fill(log, "work", 3000)
    await log._trim_finished()
    assert log.start_of("work", 0) == 0


async def test_records_expire_by_age(log: SqliteLog, clock: Clock) -> None:
    await log.ensure_topics([TopicSpec("kept", Cleanup.EXPIRE, 1, 60_000)])
    await fill(log, "kept", 100)
    clock.now += 50
    await fill(log, "kept", 10)
    clock.now += 20
    await log._remove_expired()
    assert log.start_of("kept", 0) == 100
    clock.now += 1000
    await log._remove_expired()
    assert log.start_of("kept", 0) == log.end_of("kept", 0) == 110


async def test_offsets_go_on_when_everything_has_expired(log: SqliteLog, path: Path, clock: Clock) -> None:
    await log.ensure_topics([TopicSpec("kept", Cleanup.EXPIRE, 1, 60_000)])
    await fill(log, "kept", 5)
    clock.now += 1000
    await log._remove_expired()
    await log.close()
    again = SqliteLog(path)
    await again.start()
    assert await again.append(Entry("kept", b"new"), LIMIT) == (0, 5)
    await again.close()


async def test_compaction_keeps_one_record_a_key(log: SqliteLog, path: Path, clock: Clock) -> None:
    await log.ensure_topics([TopicSpec("state", Cleanup.COMPACT, 1)])
    for number in range(50):
        await log.append(Entry("state", b"%d" % number, b"key"), LIMIT)
    await log.append(Entry("state", b"other", b"other"), LIMIT)
    await log.append(Entry("state", None, b"key"), LIMIT)
    rows = await log._call(lambda connection: connection.execute("SELECT value FROM records").fetchall())
    assert sorted(rows, key=str) == [(None,), (b"other",)]
    clock.now += 86_400 + 1
    await log._remove_expired()
    rows = await log._call(lambda connection: connection.execute("SELECT value FROM records").fetchall())
    assert rows == [(b"other",)]
    await log.close()
    again = SqliteLog(path)
    await again.start()
    assert (await again.append(Entry("state", b"new", b"key"), LIMIT)).offset >= 51
    await again.close()


async def test_space_is_used_again_and_given_back(log: SqliteLog, path: Path) -> None:
    await fill(log, "work", 400, 100_000)
    await log.trim("work", 0, 400)
    while await log._call(upkeep.give_back):
        pass
    await log.close()
    # Of 40 MB; what is left is there for the next records.
    assert size_of(path) < 6000 * 4096


async def test_a_reader_behind_the_tail_reads_from_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_log, "TAIL_BYTES", 5000)
    log = SqliteLog(path)
    await log.start()
    await log.ensure_topics([WORK])
    consumer = log.consumer("work", "group", window=10_000)
    await consumer.start()
    for number in range(100):
        await log.append(Entry("work", b"%04d" % number * 100), LIMIT)
    records = []
    while len(records) < 100:
        records += await consumer.fetch(LIMIT)
        await log.append(Entry("work", b"more"), LIMIT)
    assert [record.offset for record in records] == list(range(len(records)))
    assert [record.value for record in records[:100]] == [b"%04d" % number * 100 for number in range(100)]
    await consumer.close()
    await log.close()


async def test_partitions_are_added_where_that_is_harmless(log: SqliteLog, path: Path) -> None:
    await log.ensure_topics([TopicSpec("state", Cleanup.COMPACT, 2)])
    await log.ensure_topics([TopicSpec("work", Cleanup.TRIM, 4)])
    await log.append(Entry("work", b"value", partition=3), LIMIT)
    with pytest.raises(LogMisconfigured, match=r"state: it has 2 partitions.*log\.partitions"):
        await log.ensure_topics([TopicSpec("state", Cleanup.COMPACT, 3)])
    with pytest.raises(LogMisconfigured, match="work: its cleanup is trim, it must be expire"):
        await log.ensure_topics([TopicSpec("work", Cleanup.EXPIRE, 1, 1000)])
    await log.ensure_topics([WORK])  # fewer than there are
    with pytest.raises(LogMisconfigured, match="no partition 4"):
        await log.append(Entry("work", b"value", partition=4), LIMIT)
    await log.close()
    again = SqliteLog(path)
    await again.start()
    [record] = await again.read("work", 3, [0], LIMIT)
    assert record.value == b"value"
    await again.close()


async def test_close_writes_what_is_on_its_way(log: SqliteLog, path: Path) -> None:
    appends = [asyncio.create_task(log.append(Entry("work", b"%d" % n), LIMIT)) for n in range(100)]
    await asyncio.sleep(0)
    await log.close()
    positions = await asyncio.gather(*appends)
    again = SqliteLog(path)
    await again.start()
    assert len(await again.read("work", 0, [p.offset for p in positions], LIMIT)) == 100
    await again.close()
    with pytest.raises(LogError):
        await log.append(Entry("work", b"late"), LIMIT)
