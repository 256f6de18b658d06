"""A look into the embedded log from another process than the one that owns it: reading only, as of now.

For commands such as `gatepost trace` and `gatepost queue` while the gateway runs. In WAL mode a reader hinders
nobody.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from gatepost.backends.log_local.follower import LocalFollower
from gatepost.backends.log_sqlite.file import Contents, connect, damaged, read_contents
from gatepost.backends.log_sqlite.reader import Reader
from gatepost.backends.log_sqlite.stream import Stream
from gatepost.core.completion import Commit
from gatepost.core.ports.log import LogMisconfigured, LogUnavailable, Record, TopicSpec

READ_SECONDS: Final = 30.0


class SqliteLogView:
    """Gives followers over what was in the log at start(); they end there (caught_up)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: Reader | None = None
        self._instance = ""
        self._topics: dict[str, TopicSpec] = {}
        self._streams: dict[tuple[str, int], Stream] = {}
        self._commits: dict[tuple[str, str], dict[int, Commit]] = {}

    async def start(self) -> None:
        """Open the file. Raises LogUnavailable when there is none, or it is damaged."""
        if not self._path.exists():
            raise LogUnavailable(f"there is no log at {self._path}")
        contents = self._contents()
        self._topics, self._instance = contents.topics, contents.instance
        self._streams = {(stream.topic, stream.partition): stream for stream in contents.streams}
        self._reader = Reader(self._path)

    def _contents(self) -> Contents:
        try:
            connection = connect(self._path, read_only=True)
            try:
                self._commits = {}
                rows = connection.execute("SELECT topic, grp, partition, position, metadata FROM commits")
                for topic, group, partition, position, metadata in rows:
                    self._commits.setdefault((topic, group), {})[partition] = Commit(position, metadata)
                return read_contents(connection)
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise damaged(self._path, error) from error

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def follower(self, topic: str, *, since_ms: int | None = None) -> LocalFollower:
        return LocalFollower(self, topic, since_ms)

    async def instance_id(self) -> str:
        return self._instance

    async def commits(self, topic: str, group: str) -> Mapping[int, Commit]:
        return self._commits.get((topic, group), {})

    async def ends(self, topic: str) -> Mapping[int, range]:
        self.topic(topic)
        return {p: range(one.start, one.end) for (name, p), one in self._streams.items() if name == topic}

    async def read(self, topic: str, partition: int, offsets: Sequence[int], limit: float) -> Sequence[Record]:
        self.topic(topic)
        return await self._open().exactly(self._streams[topic, partition], offsets, limit)

    # -- storage for the follower (log_local/storage.py)

    def topic(self, name: str) -> TopicSpec:
        if name not in self._topics:
            raise LogMisconfigured(f"the log {self._path} has no topic {name}")
        return self._topics[name]

    @property
    def available(self) -> bool:
        return self._reader is not None

    def start_of(self, topic: str, partition: int) -> int:
        return self._streams[topic, partition].start

    def end_of(self, topic: str, partition: int) -> int:
        return self._streams[topic, partition].end

    def recent(self, topic: str, partition: int, offset: int, most: int) -> Sequence[Record] | None:
        return None

    async def stored(self, topic: str, partition: int, offset: int, most: int) -> Sequence[Record]:
        return await self._open().following(self._streams[topic, partition], offset, most, READ_SECONDS)

    async def first_since(self, topic: str, partition: int, since_ms: int) -> int:
        return await self._open().first_since(self._streams[topic, partition], since_ms, READ_SECONDS)

    def _open(self) -> Reader:
        if self._reader is None:
            raise LogUnavailable(f"the log {self._path} is closed")
        return self._reader

    def watch(self, topic: str, callback: Callable[[], None]) -> None:
        """Nothing new is shown."""

    def unwatch(self, topic: str, callback: Callable[[], None]) -> None:
        """Nothing was watched."""
