"""Bodies and the content port over a log."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from gatepost.backends.body import BodyWriter, MemoryBody, SpooledBody
from gatepost.backends.content_log import ContentLog
from gatepost.backends.log_memory import MemoryLog
from gatepost.core.envelope import PIECE_SIZE
from gatepost.core.ports.content import Body, ContentDamaged
from gatepost.core.ports.log import Cleanup, LogGap, LogUnavailable, LogUnknown, TopicSpec

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
    with pytest.raises(LogUnknown):
        await content.write("ID", MemoryBody(b"text"), 0.05)


async def test_a_body_that_finds_no_turn_is_refused_within_its_limit(log: MemoryLog) -> None:
    content = ContentLog(log, TOPIC.name)
    log.hold()
    others = [asyncio.create_task(content.write("ID", MemoryBody(b"text"), 30)) for _ in range(8)]
    await asyncio.sleep(0)  # they begin, in order
    with pytest.raises(LogUnavailable):
        await content.write("ID", MemoryBody(b"text"), 0.05)
    log.release()
    assert len({(ref.partition, ref.offsets) for ref in await asyncio.gather(*others)}) == 8
