"""Reading the embedded log's file in threads, so that the event loop never waits for the disk."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final, TypeVar

import msgspec

from gatepost.backends.log_local.storage import FETCH_BYTES
from gatepost.backends.log_sqlite.file import connect, damaged
from gatepost.backends.log_sqlite.stream import MAX_OFFSET, Stream
from gatepost.core.ports.log import Headers, LogGap, LogUnavailable, Record

T = TypeVar("T")

# A second one, so that a consumer that catches up does not wait for a large body.
_THREADS: Final = 2

_COLUMNS: Final = "SELECT id, at, key, headers, value FROM records"

_decode_headers = msgspec.msgpack.Decoder(Headers).decode


class Reader:
    """Reads through connections of its own: in WAL mode readers and the writer do not wait for each other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="log reader")
        self._connections: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        for _ in range(_THREADS):
            self._connections.put(connect(path, read_only=True))

    def close(self) -> None:
        """Close without waiting for reads that hang; their threads end when the disk answers."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        while not self._connections.empty():
            self._connections.get_nowait().close()

    async def following(self, stream: Stream, offset: int, most: int, limit: float) -> Sequence[Record]:
        """Return records from `offset` on: at most `most`, and no more than one above FETCH_BYTES."""

        def read(connection: sqlite3.Connection) -> Sequence[Record]:
            rows = connection.execute(
                f"{_COLUMNS} WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
                (stream.base | offset, stream.base | MAX_OFFSET, most),
            )
            records = []
            size = 0
            for row in rows:
                records.append(_record(stream, row))
                size += len(records[-1].value)
                if size >= FETCH_BYTES:
                    break
            return records

        return await self._run(read, limit)

    async def exactly(self, stream: Stream, offsets: Sequence[int], limit: float) -> Sequence[Record]:
        """Return the records at these offsets, in their order. Raises LogGap."""

        def read(connection: sqlite3.Connection) -> Sequence[Record]:
            records = []
            for offset in offsets:
                row = connection.execute(f"{_COLUMNS} WHERE id = ?", (stream.base | offset,)).fetchone()
                if row is None or not 0 <= offset <= MAX_OFFSET:
                    raise LogGap(f"{stream.topic}/{stream.partition}: no record at offset {offset}")
                records.append(_record(stream, row))
            return records

        return await self._run(read, limit)

    async def first_since(self, stream: Stream, since_ms: int, limit: float) -> int:
        """Return the offset of the first record appended at or after `since_ms`, or the stream's end."""
        end = stream.end

        def read(connection: sqlite3.Connection) -> int:
            # Times rise with the offsets, as far as the clock does: halve the range, minding removed rows.
            low, high = stream.start, end
            while low < high:
                middle = (low + high) // 2
                row = connection.execute(
                    "SELECT id, at FROM records WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1",
                    (stream.base | middle, stream.base | (high - 1)),
                ).fetchone()
                if row is not None and row[1] < since_ms:
                    low = row[0] - stream.base + 1
                else:
                    high = middle
            return low

        return await self._run(read, limit)

    async def _run(self, read: Callable[[sqlite3.Connection], T], limit: float) -> T:
        def work() -> T:
            connection = self._connections.get()
            try:
                return read(connection)
            finally:
                self._connections.put(connection)

        try:
            future = asyncio.get_running_loop().run_in_executor(self._threads, work)
            return await asyncio.wait_for(future, limit)
        except TimeoutError:
            raise LogUnavailable(f"reading the log {self._path} took longer than {limit:g} s") from None
        except sqlite3.Error as error:
            raise damaged(self._path, error) from error
        except RuntimeError as error:
            raise LogUnavailable(f"the log {self._path} is closed") from error


def _record(stream: Stream, row: tuple[int, int, bytes | None, bytes | None, bytes | None]) -> Record:
    number, at, key, headers, value = row
    return Record(
        topic=stream.topic,
        partition=stream.partition,
        offset=number - stream.base,
        timestamp_ms=at,
        key=key,
        value=value or b"",
        headers=_decode_headers(headers) if headers else (),
    )
