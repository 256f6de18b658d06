"""`gatepost skip-gap`: lets a group go on where the records that it should read next are gone.

A reader never does that by itself. This says what is skipped, and does it only with --yes.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import msgspec

from gatepost.backends.settings_file import load_settings
from gatepost.cli.looking import settings_file
from gatepost.core.completion import Commit
from gatepost.core.manifest.read import ManifestError
from gatepost.core.manifest.settings import Settings
from gatepost.core.ports.log import Log
from gatepost.core.topics import Topics
from gatepost.work.backlog import Queue, all_queues


class Gap(msgspec.Struct, frozen=True):
    """A partition whose group is at an offset that is not there. `gone` is None where nobody can know how many."""

    at: int
    held: range
    gone: int | None

    def __str__(self) -> str:
        holds = f"it holds {self.held.start} to {self.held.stop - 1}" if self.held else "it is empty"
        if self.gone is None:
            return (
                f"the group is at offset {self.at}, behind the end: {holds}; the topic was made anew, or an older "
                "state of it was restored. What it held then is gone"
            )
        return f"the group is at offset {self.at}: {holds}. {self.gone} records are gone"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--topic", required=True, metavar="T", help="as the alarm names it")
    parser.add_argument("--partition", required=True, type=int, metavar="P")
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="gatepost.yaml")
    parser.add_argument("--state", type=Path, metavar="DIR")
    parser.add_argument("--yes", action="store_true", help="do it; without this it is only said")


def run(options: argparse.Namespace) -> int:
    settings = load_settings(settings_file(options.config), options.state)
    topics = Topics(settings.log.topic_prefix)
    queue = next((one for one in all_queues(topics, settings.stores) if one.topic == options.topic), None)
    if queue is None:
        raise ManifestError(
            "the command line", "--topic", f"{options.topic!r} is no work topic of this installation"
        )
    return asyncio.run(_skip(settings, queue, options.partition, yes=options.yes))


async def _skip(settings: Settings, queue: Queue, partition: int, *, yes: bool) -> int:
    log = _log_of(settings)
    await log.start()
    try:
        gap = await find_gap(log, queue, partition)
        where = f"{queue.topic}/{partition}"
        if gap is None:
            print(f"{where}: nothing is missing, and nothing was changed")
            return 1
        print(f"{where}: {gap}.")
        if not yes:
            print(f"With --yes the group {queue.group} reads on at offset {gap.held.start}; nothing was changed.")
            return 1
        await log.save_commits(queue.topic, queue.group, {partition: Commit(gap.held.start)})
        print(f"The group {queue.group} reads on at offset {gap.held.start}.")
        return 0
    finally:
        await log.close()


async def find_gap(log: Log, queue: Queue, partition: int) -> Gap | None:
    """Compare a group's position with what its partition holds. Raises LogError, ManifestError (no such one)."""
    held = (await log.ends(queue.topic)).get(partition)
    if held is None:
        raise ManifestError("the command line", "--partition", f"{queue.topic} has no partition {partition}")
    commit = (await log.commits(queue.topic, queue.group)).get(partition)
    if commit is None or held.start <= commit.position <= held.stop:
        return None
    below = commit.position < held.start
    return Gap(commit.position, held, held.start - commit.position if below else None)


def _log_of(settings: Settings) -> Log:
    """The log to change: an embedded one must not be in use."""
    if settings.log.sqlite is not None:
        from gatepost.backends.log_sqlite import SqliteLog

        return SqliteLog(Path(settings.state) / settings.log.sqlite.file)
    from gatepost.backends.log_kafka import KafkaLog

    assert settings.log.kafka is not None
    return KafkaLog(settings.log.kafka, client_id="gatepost-skip-gap")
