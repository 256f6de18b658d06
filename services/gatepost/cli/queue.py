"""`gatepost queue list|show`: what waits, where, since when, why, and when it is tried next. Reading only."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from gatepost.backends.log_sqlite.view import SqliteLogView
from gatepost.backends.settings_file import load_settings
from gatepost.cli.looking import log_of, read_topic, settings_file
from gatepost.core.envelope import EnvelopeError
from gatepost.core.ids import is_id
from gatepost.core.manifest.read import ManifestError
from gatepost.core.message import date_time
from gatepost.core.ports.log import Log, LogMisconfigured
from gatepost.core.queue_listing import Total, Waiting, by_destination, by_topic, unfinished, waiting
from gatepost.core.records import read_item
from gatepost.core.topics import Topics
from gatepost.work.backlog import Queue, all_queues

SHOWN: Final = 50
LOOK_LIMIT_S: Final = 600.0  # a million copies on Kafka take some minutes to read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="queue", metavar="list|show", required=True)
    listing = commands.add_parser("list", help="sums by topic and by destination, and the oldest copies")
    listing.add_argument("--limit", type=int, default=SHOWN, metavar="N", help=f"copies to list ({SHOWN}); 0: all")
    showing = commands.add_parser("show", help="one message and the copies of it that wait")
    showing.add_argument("id", metavar="ID")
    for command in (listing, showing):
        command.add_argument("--config", required=True, type=Path, metavar="FILE", help="gatepost.yaml")
        command.add_argument("--state", type=Path, metavar="DIR")
        command.add_argument("--output", choices=("text", "json"), default="text")


def run(options: argparse.Namespace) -> int:
    wanted = options.id.upper() if options.queue == "show" else ""
    if wanted and not is_id(wanted):
        raise ManifestError("the command line", "ID", f"{options.id!r} is not a message id (26 letters and digits)")
    settings = load_settings(settings_file(options.config), options.state)
    topics = Topics(settings.log.topic_prefix)
    log = log_of(settings, "queue")
    found = asyncio.run(_all(log, topics, all_queues(topics, settings.stores)))
    found.sort(key=lambda one: (one.received_ms, one.id, one.topic, one.offset))
    if wanted:
        found = [one for one in found if wanted in (one.id, one.parent)]
        return _show(found, wanted, as_json=options.output == "json")
    limit = options.limit or len(found)
    if options.output == "json":
        print(json.dumps(_as_json(found, limit), ensure_ascii=False, indent=2))
    else:
        _print(found, limit)
    return 0


async def _all(log: Log | SqliteLogView, topics: Topics, queues: list[Queue]) -> list[Waiting]:
    found: list[Waiting] = []
    async with asyncio.timeout(LOOK_LIMIT_S):
        await log.start()
        try:
            for queue in queues:
                found += await _one(log, topics, queue)
        finally:
            await log.close()
    # A copy that moved on while we read is only where it was seen last.
    return list({(one.id, one.recipients): one for one in found}.values())


async def _one(log: Log | SqliteLogView, topics: Topics, queue: Queue) -> list[Waiting]:
    try:
        commits = dict(await log.commits(queue.topic, queue.group))
        found = []
        async for records in read_topic(log, queue.topic):
            for record in unfinished(records, commits):
                try:
                    found.append(waiting(record, read_item(record).envelope, topics))
                except EnvelopeError:
                    continue  # a damaged one is quarantined by whoever works on it
    except LogMisconfigured:
        return []  # a store that was never used has no topic yet
    return found


def _as_json(found: list[Waiting], limit: int) -> dict[str, Any]:
    return {
        "copies": len(found),
        "topics": msgspec.to_builtins(by_topic(found)),
        "destinations": msgspec.to_builtins(by_destination(found)),
        "waiting": msgspec.to_builtins(found[:limit]),
    }


def _print(found: list[Waiting], limit: int) -> None:
    now_ms = int(time.time() * 1000)
    if not found:
        print("The queue is empty.")
        return
    _print_totals("topic", by_topic(found), now_ms)
    _print_totals("destination", by_destination(found), now_ms)
    print(f"{'id':<26}  {'age':>7}  {'size':>9}  {'tries':>5}  {'next':>7}  sender -> recipients")
    for one in found[:limit]:
        due = _span(one.next_ms - now_ms) if one.next_ms > now_ms else "now"
        print(
            f"{one.id:<26}  {_span(now_ms - one.received_ms):>7}  {one.size:>9}  {one.attempts:>5}  {due:>7}  "
            f"{one.sender} -> {_some(one.recipients)}"
        )
        if one.reason:
            print(f"{'':<26}  {one.where}{f' ({one.remote})' if one.remote else ''}: {one.reason}")
    if len(found) > limit:
        print(f"... and {len(found) - limit} more (--limit 0 lists all)")


def _print_totals(title: str, totals: list[Total], now_ms: int) -> None:
    width = max(len(title), *(len(total.name) for total in totals))
    print(f"{title:<{width}}  {'copies':>7}  {'recipients':>10}  {'oldest':>7}  last reason")
    for total in totals:
        print(
            f"{total.name:<{width}}  {total.copies:>7}  {total.recipients:>10}  "
            f"{_span(now_ms - total.oldest_ms):>7}  {total.reason}".rstrip()
        )
    print()


def _show(found: list[Waiting], wanted: str, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(msgspec.to_builtins(found), ensure_ascii=False, indent=2))
    elif not found:
        print(f"{wanted} does not wait anywhere (gatepost trace tells what became of it)")
    for one in found if not as_json else ():
        rows = {
            "id": f"{one.id}{f', a copy of {one.parent}' if one.parent not in ('', one.id) else ''}",
            "where": f"{one.where}, in {one.topic}/{one.partition} at {one.offset}",
            "sender": one.sender,
            "recipients": ", ".join(one.recipients),
            "size": f"{one.size} bytes",
            "accepted": date_time(one.received_ms),
            "queued": date_time(one.queued_ms),
            "attempts": str(one.attempts),
            "next": date_time(one.next_ms) if one.next_ms else "as soon as it is its turn",
            "reason": f"{one.reason}{f' (said by {one.remote})' if one.remote else ''}",
        }
        print("\n".join(f"{name:<11} {value}" for name, value in rows.items() if value) + "\n")
    return 0 if found else 1


def _some(recipients: tuple[str, ...]) -> str:
    more = f" and {len(recipients) - 1} more" if len(recipients) > 1 else ""
    return f"<{recipients[0]}>{more}" if recipients else ""


def _span(ms: float) -> str:
    """A time span in its two largest units: what a table has room for."""
    rest = max(0, int(ms / 1000))
    for size, name, less, lower in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if rest >= size:
            return f"{rest // size}{name}{rest % size // less}{lower}"
    return f"{rest}s"
