"""Bodies and the content port over a log."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
from pathlib import Path

import pytest

from gatepost.backends import content_stream
from gatepost.backends.body import BodyWriter, MemoryBody, SpooledBody
from gatepost.backends.content_log import ContentLog
from gatepost.backends.log_memory import MemoryLog
from gatepost.backends.log_sqlite import SqliteLog
from gatepost.core.envelope import PIECE_SIZE
from gatepost.core.ports.content import Body, ContentDamaged
from gatepost.core.ports.log import Cleanup, Entry, LogGap, LogUnavailable, Position, TopicSpec
from gatepost.telemetry import metrics

TOPIC = TopicSpec("content", Cleanup.EXPIRE, 3, 1000)


async def pieces_of(body: Body, size: int) -> list[bytes]:
    return [piece async for piece in body.pieces(size)]


def written(data: bytes, spool_above: int, folder: Path, step: int = 1000) -> MemoryBody | SpooledBody:
    writer = BodyWriter(spool_above, folder)
    for start in range(0, len(data), step):
        writer.write(data[start : start + step])
    assert writer.size == len(data)
    return writer.finish()


@pytest.mark.parametrize("size", [0, 1, 1000, 4096, 4097, 10_000])
@pytest.mark.parametrize("kind", [MemoryBody, SpooledBody])
async def test_a_body_gives_back_what_was_written(kind: type, size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    body = written(data, -1 if kind is SpooledBody else size, tmp_path)
    assert isinstance(body, kind if size else MemoryBody)
    assert body.size == size
    assert body.sha256 == hashlib.sha256(data).hexdigest()
    assert body.whole() == data
    pieces = await pieces_of(body, 4096)
    assert b"".join(pieces) == data
    assert all(len(piece) == 4096 for piece in pieces[:-1])
    body.close()


def test_a_spooled_body_leaves_no_file_and_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    body = written(b"x" * 10_000, 5000, tmp_path)
    assert isinstance(body, SpooledBody)
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before + 1
    body.close()
    body.close()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ValueError, match="closed"):
        body.whole()


def test_an_abandoned_writer_gives_back_its_file(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    writer = BodyWriter(10, tmp_path)
    writer.write(b"x" * 100)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    writer.abandon()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
async def log() -> MemoryLog:
    log = MemoryLog()
    await log.start()
    await log.ensure_topics([TOPIC])
    return log


async def test_an_empty_body_needs_no_pieces(log: MemoryLog) -> None:
    content = ContentLog(log, TOPIC.name)
    ref = await content.write("ID", MemoryBody(b""), 5)
    assert ref.offsets == ()
    assert (await content.read(ref, 5)).whole() == b""


async def test_all_pieces_lie_in_one_partition(log: MemoryLog) -> None:
    content = ContentLog(log, TOPIC.name)
    data = os.urandom(2 * PIECE_SIZE + 1)
    ref = await content.write("ID", MemoryBody(data), 5)
    records = log.records(TOPIC.name)
    assert {record.partition for record in records} == {ref.partition}
    assert [record.header("piece") for record in records] == [b"ID/0", b"ID/1", b"ID/2"]
    assert (await content.read(ref, 5)).whole() == data


async def test_a_piece_that_was_trimmed_is_a_gap(log: MemoryLog) -> None:
    content = ContentLog(log, TOPIC.name)
    ref = await content.write("ID", MemoryBody(os.urandom(PIECE_SIZE + 1)), 5)
    await log.trim(TOPIC.name, ref.partition, ref.offsets[1])
    with pytest.raises(LogGap):
        await content.read(ref, 5)


async def test_a_body_that_is_not_what_was_promised_is_refused(log: MemoryLog, tmp_path: Path) -> None:
    content = ContentLog(log, TOPIC.name, spool_above=10, folder=tmp_path)
    ref = await content.write("ID", MemoryBody(b"some text that is spooled"), 5)
    other = await content.write("ID", MemoryBody(b"some TEXT that is spooled"), 5)
    before = len(os.listdir("/proc/self/fd"))
    wrong = type(ref)(ref.topic, other.partition, other.offsets, ref.size, ref.sha256)
    with pytest.raises(ContentDamaged):
        await content.read(wrong, 5)
    short = type(ref)(ref.topic, ref.partition, ref.offsets, ref.size + 1, ref.sha256)
    with pytest.raises(ContentDamaged):
        await content.read(short, 5)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_the_limit_is_for_the_whole_body(log: MemoryLog) -> None:
    content = ContentLog(log, TOPIC.name)
    log.hold()
    with pytest.raises(LogUnavailable):
        await content.write("ID", MemoryBody(b"text"), 0.05)


def nothing() -> None:
    return None


async def turns(log: MemoryLog) -> None:
    """Let every piece that may go to the log go there."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_pieces_take_turns_in_a_bounded_window(log: MemoryLog) -> None:
    """One body has few pieces on their way, all together at most PIECES_AT_ONCE; the turns go round."""
    content = ContentLog(log, TOPIC.name)
    log.hold()
    first, second, third, fourth = streams = [content.open(f"ID{n}", 30, nothing) for n in range(4)]
    for _ in range(5):
        first.append(b"1")
    await turns(log)
    assert len(log._held) == content_stream.OF_ONE_BODY
    assert first.behind
    for stream in (second, third, fourth):
        for _ in range(5):
            stream.append(b"x")
    await turns(log)
    assert len(log._held) == content_stream.PIECES_AT_ONCE
    assert {held.entry.key for held in log._held} == {b"ID0", b"ID1", b"ID2"}
    assert metrics.CONTENT_UNCONFIRMED.current() == {(): content_stream.PIECES_AT_ONCE}
    log.release()
    refs = [await stream.finish(5, "") for stream in streams]
    assert [len(ref.offsets) for ref in refs] == [5] * 4
    for number, ref in enumerate(refs):
        records = await log.read(TOPIC.name, ref.partition, ref.offsets, 5)
        assert [record.header("piece") for record in records] == [b"ID%d/%d" % (number, n) for n in range(5)]
    await turns(log)
    assert metrics.CONTENT_UNCONFIRMED.current() == {(): 0}


async def test_room_is_told_once_the_last_piece_has_its_turn(log: MemoryLog) -> None:
    content = ContentLog(log, TOPIC.name)
    told: list[str] = []
    log.hold()
    stream = content.open("ID", 30, lambda: told.append("room"))
    for _ in range(content_stream.OF_ONE_BODY):
        stream.append(b"x")
    assert not stream.behind
    stream.append(b"x")
    stream.append(b"x")
    await turns(log)
    assert stream.behind
    assert told == []
    log.release()
    ref = await stream.finish(5, "")
    assert told == ["room"]
    assert len(ref.offsets) == 5


async def test_a_log_that_stands_still_refuses_all_who_wait(log: MemoryLog) -> None:
    """Their own limits have not begun; one piece that ran into its limit speaks for the log."""
    content = ContentLog(log, TOPIC.name)
    log.hold()
    under_way = [content.open(f"ID{n}", 0.05, nothing) for n in range(content_stream.PIECES_AT_ONCE)]
    told: list[str] = []
    waiting = content.open("LATE", 1000, lambda: told.append("room"))
    for stream in (*under_way, waiting):
        stream.append(b"x")
    assert [stream.behind for stream in (*under_way, waiting)] == [False] * len(under_way) + [True]
    for stream in (*under_way, waiting):
        async with asyncio.timeout(20):
            with pytest.raises(LogUnavailable):
                await stream.finish(1, "")
    await turns(log)
    assert told == ["room"]
    log.release()


async def test_one_piece_that_fails_while_others_succeed_stops_only_its_body(log: MemoryLog) -> None:
    """As with one partition that has lost its leader: bodies for the others go on."""
    content = ContentLog(log, TOPIC.name)
    real = log.append

    async def append(entry: Entry, limit: float) -> Position:
        if entry.key == b"LOST":
            await asyncio.sleep(limit)
            raise LogUnavailable("the partition has no leader")
        await asyncio.sleep(0.01)
        return await real(entry, limit)

    log.append = append  # type: ignore[method-assign]
    lost = content.open("LOST", 0.3, nothing)
    good = [content.open(f"ID{n}", 30, nothing) for n in range(20)]
    for stream in (lost, *good):
        for _ in range(10):
            stream.append(b"x")
    with pytest.raises(LogUnavailable):
        await lost.finish(10, "")
    assert lost.failed
    assert [len((await stream.finish(10, "")).offsets) for stream in good] == [10] * 20


async def test_a_piece_is_tried_again_within_its_limit(log: MemoryLog) -> None:
    content = ContentLog(log, TOPIC.name)
    log.go_away()
    asyncio.get_running_loop().call_later(0.05, log.come_back)
    ref = await content.write("ID", MemoryBody(b"text"), 20)
    assert (await content.read(ref, 5)).whole() == b"text"


async def test_given_up_bodies_hold_their_places_until_the_log_lets_go(log: MemoryLog) -> None:
    """Else clients that come and go in an outage would fill the memory behind the log."""
    content = ContentLog(log, TOPIC.name)
    log.hold()
    for number in range(30):
        stream = content.open(f"ID{number}", 30, nothing)
        stream.append(b"x")
        await turns(log)
        stream.abandon()
    assert len(log._held) == content_stream.PIECES_AT_ONCE
    log.release()
    ref = await content.write("ID", MemoryBody(b"text"), 5)
    assert (await content.read(ref, 5)).whole() == b"text"


async def test_a_body_that_finds_no_turn_is_refused_within_its_limit(log: MemoryLog) -> None:
    content = ContentLog(log, TOPIC.name)
    log.hold()
    others = [asyncio.create_task(content.write("ID", MemoryBody(b"text"), 30)) for _ in range(8)]
    await turns(log)  # they begin, in order
    with pytest.raises(LogUnavailable):
        await content.write("ID", MemoryBody(b"text"), 0.05)
    log.release()
    assert len({(ref.partition, ref.offsets) for ref in await asyncio.gather(*others)}) == 8


async def test_a_topic_that_gets_more_partitions_meanwhile(log: MemoryLog) -> None:
    """The first piece's partition is for all: a reference names one."""
    content = ContentLog(log, TOPIC.name)
    stream = content.open("ID", 5, nothing)
    stream.append(b"x")
    await turns(log)
    await log.ensure_topics([TOPIC])
    topic = log.storage.topics[TOPIC.name]
    topic.spec = type(TOPIC)(TOPIC.name, TOPIC.cleanup, 7, TOPIC.retention_ms)
    topic.partitions += [type(topic.partitions[0])() for _ in range(4)]
    stream.append(b"y")
    ref = await stream.finish(2, "")
    assert len(await log.read(TOPIC.name, ref.partition, ref.offsets, 5)) == 2


async def test_the_embedded_log_does_not_keep_what_it_has_written(tmp_path: Path) -> None:
    """Its watch over limits once kept every append for its whole limit, and with it seconds of large bodies."""
    gone = 0

    class Piece(bytes):
        def __del__(self) -> None:
            nonlocal gone
            gone += 1

    log = SqliteLog(tmp_path / "log.sqlite3")
    await log.start()
    try:
        await log.ensure_topics([TOPIC])
        for _ in range(10):
            await log.append(Entry(TOPIC.name, Piece(PIECE_SIZE)), 60)
        gc.collect()
        assert gone >= 9, "the writer's thread may still look at the last one"
    finally:
        await log.close()


async def test_many_streams_at_once_on_the_embedded_log(tmp_path: Path) -> None:
    """Small appends get through beside them: the writer's thread takes both together."""
    log = SqliteLog(tmp_path / "log.sqlite3")
    await log.start()
    try:
        await log.ensure_topics([TOPIC, TopicSpec("small", Cleanup.EXPIRE, 1, 1000)])
        content = ContentLog(log, TOPIC.name, folder=tmp_path)
        bodies = [os.urandom(2 * PIECE_SIZE + number) for number in range(12)]
        writing = [asyncio.create_task(content.write(f"ID{n}", MemoryBody(b), 60)) for n, b in enumerate(bodies)]
        small = 0
        while not all(task.done() for task in writing):
            await log.append(Entry("small", b"x"), 20)
            small += 1
        assert small > 1
        for task, data in zip(writing, bodies, strict=True):
            body = await content.read(task.result(), 20)
            assert body.whole() == data
            body.close()
    finally:
        await log.close()
