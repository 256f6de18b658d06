"""`gatepost trace ID`: what happened to a message and to everything that came out of it, in order."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Final

import msgspec

from gatepost.backends.events_log import decode_events
from gatepost.backends.log_sqlite.view import SqliteLogView
from gatepost.backends.settings_file import load_settings
from gatepost.core.event_kinds import MEANING
from gatepost.core.ids import is_id, time_of
from gatepost.core.manifest.read import ManifestError
from gatepost.core.manifest.settings import Settings
from gatepost.core.message import date_time
from gatepost.core.ports.events import Event
from gatepost.core.ports.log import Log, Record
from gatepost.core.topics import Topics

FETCH_LIMIT_S: Final = 1.0
READ_LIMIT_S: Final = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the id in the 250 reply")
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="gatepost.yaml")
    parser.add_argument("--state", type=Path, metavar="DIR")
    parser.add_argument("--output", choices=("text", "json"), default="text")


def run(options: argparse.Namespace) -> int:
    message_id: str = options.id.upper()
    if not is_id(message_id):
        raise ManifestError("the command line", "ID", f"{options.id!r} is not a message id (26 letters and digits)")
    file = options.config / "gatepost.yaml" if options.config.is_dir() else options.config
    events = asyncio.run(_collect(file, options.state, message_id))
    if options.output == "json":
        print(json.dumps([msgspec.to_builtins(event) for event in events], ensure_ascii=False, indent=2))
    else:
        _print(message_id, events)
    return 0 if events else 1


async def _collect(file: Path, state: Path | None, message_id: str) -> list[Event]:
    """Read the events from the time in the id on; a copy's events name their parent."""
    settings = load_settings(file, state)
    topics = Topics(settings.log.topic_prefix)
    log = _log_of(settings)
    await log.start()
    everything: list[Event] = []
    try:
        follower = log.follower(topics.events, since_ms=time_of(message_id))
        await follower.start()
        try:
            async with asyncio.timeout(READ_LIMIT_S):
                while not follower.caught_up:
                    for record in await follower.fetch(FETCH_LIMIT_S):
                        everything += _events(record)
        finally:
            await follower.close()
    finally:
        await log.close()
    return _family(message_id, everything)


def _log_of(settings: Settings) -> Log | SqliteLogView:
    """Kafka, or a look into the embedded log, which belongs to the process that runs."""
    if settings.log.sqlite is not None:
        return SqliteLogView(Path(settings.state) / settings.log.sqlite.file)
    from gatepost.backends.log_kafka import KafkaLog

    assert settings.log.kafka is not None
    return KafkaLog(settings.log.kafka, client_id="gatepost-trace")


def _family(message_id: str, everything: list[Event]) -> list[Event]:
    """The events of a message, of what it came out of, and of all that came out of it; each once, by time."""
    family = {message_id}
    grown = True
    while grown:
        related = {event.id for event in everything if event.parent in family}
        related |= {event.parent for event in everything if event.id in family and event.parent}
        grown = not related <= family
        family |= related
    found = {msgspec.json.encode(event): event for event in everything if event.id in family}
    return sorted(found.values(), key=lambda event: event.at_ms)


def _events(record: Record) -> list[Event]:
    try:
        return list(decode_events(record.value))
    except msgspec.MsgspecError:
        return []


def _print(message_id: str, events: list[Event]) -> None:
    if not events:
        print(f"no events of {message_id} (they are kept for 7 days)", file=sys.stderr)
        return
    for event in events:
        facts = "  ".join(f"{name}={value}" for name, value in event.facts.items())
        print(f"{date_time(event.at_ms)}  {event.service:<8} {event.kind:<9} {event.recipient}")
        print(f"    {MEANING.get(event.kind, '')}{'; ' + facts if facts else ''}")
    traces = {event.trace_id for event in events if event.trace_id}
    for trace in sorted(traces):
        print(f"trace {trace}")
