"""What the commands that look share: the log to look into (never to change it), and reading a topic to its end.

The embedded log belongs to the process that runs; it is looked into beside it. Whoever may read the log's file, or
has the rights to read the topics on Kafka, may see what is in it: nobody can ask for it over SMTP.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from gatepost.backends.config_dir import SETTINGS_FILE
from gatepost.backends.log_sqlite.view import SqliteLogView
from gatepost.core.manifest.settings import Settings
from gatepost.core.ports.log import Log, LogUnavailable, Record

FETCH_LIMIT_S: Final = 1.0
QUIET_LIMIT_S: Final = 60.0  # nothing came for so long and it is not the end: the log is away
PROGRESS_AFTER_S: Final = 2.0
PROGRESS_EVERY_S: Final = 0.5


def settings_file(config: Path) -> Path:
    """gatepost.yaml, given itself or by its folder."""
    return config / SETTINGS_FILE if config.is_dir() else config


def log_of(settings: Settings, command: str) -> Log | SqliteLogView:
    """Kafka, or a look into the embedded log."""
    if settings.log.sqlite is not None:
        return SqliteLogView(Path(settings.state) / settings.log.sqlite.file)
    from gatepost.backends.log_kafka import KafkaLog

    assert settings.log.kafka is not None
    return KafkaLog(settings.log.kafka, client_id=f"gatepost-{command}")


async def read_topic(
    log: Log | SqliteLogView, topic: str, since_ms: int | None = None
) -> AsyncIterator[Sequence[Record]]:
    """Give everything that is in a topic now, in the order of its partitions.

    Raises LogUnavailable when the log goes away meanwhile: what was read so far must not be taken for all.
    """
    follower = log.follower(topic, since_ms=since_ms)
    await follower.start()
    progress, last = Progress(topic), asyncio.get_running_loop().time()
    try:
        while not follower.caught_up:
            records = await follower.fetch(FETCH_LIMIT_S)
            now = asyncio.get_running_loop().time()
            if records:
                last = now
                progress.add(len(records))
                yield records
            elif now - last > QUIET_LIMIT_S:
                raise LogUnavailable(f"reading {topic} stopped: nothing came for {QUIET_LIMIT_S:.0f} s")
    finally:
        progress.end()
        await follower.close()


class Progress:
    """A line on the terminal of a person who waits; nothing where nobody watches or it is quick."""

    def __init__(self, what: str) -> None:
        self._what, self._count, self._shown = what, 0, False
        self._next = time.monotonic() + PROGRESS_AFTER_S

    def add(self, count: int) -> None:
        self._count += count
        if time.monotonic() >= self._next and sys.stderr.isatty():
            self._next = time.monotonic() + PROGRESS_EVERY_S
            self._shown = True
            print(f"\r{self._what}: {self._count} records read ", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._shown:
            print(file=sys.stderr)
