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
from gatepost.backends.settings_file import load_settings
from gatepost.cli.looking import log_of, read_topic, settings_file
from gatepost.core.event_kinds import MEANING
from gatepost.core.ids import is_id, time_of
from gatepost.core.manifest.read import ManifestError
from gatepost.core.message import date_time
from gatepost.core.ports.events import Event
from gatepost.core.ports.log import Record
from gatepost.core.sampling import in_sample
from gatepost.core.topics import Topics

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
    file = settings_file(options.config)
    events = asyncio.run(_collect(file, options.state, message_id))
    if options.output == "json":
        print(json.dumps([msgspec.to_builtins(event) for event in events], ensure_ascii=False, indent=2))
    else:
        _print(message_id, events)
    if not in_sample(message_id, share := load_settings(file, options.state).telemetry.event_sampling):
        print(
            f"telemetry.eventSampling is {share:g} and {message_id} is not in the sample: of such a message only "
            "refusals, deferrals, failures and the like are written, not accepted, routed, stored and sent",
            file=sys.stderr,
        )
    return 0 if events else 1


async def _collect(file: Path, state: Path | None, message_id: str) -> list[Event]:
    """Read the events from the time in the id on; a copy's events name their parent."""
    settings = load_settings(file, state)
    topics = Topics(settings.log.topic_prefix)
    log = log_of(settings, "trace")
    everything: list[Event] = []
    await log.start()
    try:
        async with asyncio.timeout(READ_LIMIT_S):
            async for records in read_topic(log, topics.events, since_ms=time_of(message_id)):
                for record in records:
                    everything += events_of(record)
    finally:
        await log.close()
    return family({message_id}, everything)


def family(ids: set[str], everything: list[Event]) -> list[Event]:
    """The events of messages, of what they came out of, and of all that came out of them; each once, by time."""
    known = set(ids)
    grown = True
    while grown:
        related = {event.id for event in everything if event.parent in known}
        related |= {event.parent for event in everything if event.id in known and event.parent}
        grown = not related <= known
        known |= related
    found = {msgspec.json.encode(event): event for event in everything if event.id in known}
    return sorted(found.values(), key=lambda event: event.at_ms)


def events_of(record: Record) -> list[Event]:
    """The events in a record; none when it is none of ours."""
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
