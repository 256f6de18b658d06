"""`gatepost evidence`: all that is known of an incident as one export with a manifest, fit to be handed on.

The events hold no passwords and no message content; with --with-content the messages that the log still holds are
put beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import socket
import sys
import tarfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from gatepost import __version__
from gatepost.backends.log_sqlite.view import SqliteLogView
from gatepost.backends.settings_file import load_settings
from gatepost.cli.held_content import held_messages
from gatepost.cli.looking import log_of, read_topic, settings_file
from gatepost.cli.trace import events_of, family
from gatepost.core.event_kinds import MEANING
from gatepost.core.evidence import PREFIX, Manifest, Matcher, Query, counts, doubts, part
from gatepost.core.ids import is_id, time_of
from gatepost.core.manifest.quantities import DURATION_PATTERN, seconds
from gatepost.core.manifest.read import ManifestError
from gatepost.core.message import date_time
from gatepost.core.networks import NetworkError
from gatepost.core.ports.events import Event
from gatepost.core.ports.log import Log
from gatepost.core.topics import EVENTS_RETENTION_MS, Topics

# An event is written some moments after what it tells of; a log's clock may be another machine's.
SLACK_MS: Final = 120_000
MANIFEST: Final = "MANIFEST.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_argument_group("what to look for (all that are given must fit)")
    which.add_argument("--id", metavar="ID", help="a message, a copy or a session")
    which.add_argument("--client", metavar="IP|CIDR", help="the client's address or network")
    which.add_argument("--sender", metavar="ADDRESS", help="the envelope's sender")
    which.add_argument("--recipient", metavar="ADDRESS")
    which.add_argument("--since", metavar="TIME", help='RFC 3339, UTC without an offset, or a time ago as "36h"')
    which.add_argument("--until", metavar="TIME")
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="gatepost.yaml")
    parser.add_argument("--state", type=Path, metavar="DIR")
    parser.add_argument("--output", choices=("json", "text", "tar"), default="tar")
    parser.add_argument("--to", required=True, type=Path, metavar="FILE", help="a new file, readable by you alone")
    parser.add_argument(
        "--with-content", action="store_true", help="also the messages that the log still holds (tar)"
    )


def run(options: argparse.Namespace) -> int:
    now_ms = int(time.time() * 1000)
    query = _query(options, now_ms)
    try:
        matcher = Matcher(query)
    except NetworkError as error:
        raise ManifestError("the command line", "--client", str(error)) from None
    if options.with_content and options.output != "tar":
        raise ManifestError("the command line", "--with-content", "needs --output tar")
    settings = load_settings(settings_file(options.config), options.state)
    topics = Topics(settings.log.topic_prefix)
    log = log_of(settings, "evidence")
    stores = tuple(settings.stores)
    handle = os.open(options.to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    whole = False
    try:
        found, first_ms, instance, content = asyncio.run(
            _collect(log, topics, stores, query, matcher, with_content=options.with_content)
        )
        manifest, files = _files(
            query, found, content, doubts(query, first_ms, now_ms), instance, settings.hostname
        )
        data = _FORMS[options.output](manifest, files)
        with os.fdopen(os.dup(handle), "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        whole = True
    finally:
        os.close(handle)
        if not whole:
            options.to.unlink(missing_ok=True)  # a cut export must not be taken for evidence
    _say(options.to, data, manifest)
    return 0 if found else 1


# -- the question


def _query(options: argparse.Namespace, now_ms: int) -> Query:
    message_id = (options.id or "").upper()
    if not any((options.id, options.client, options.sender, options.recipient, options.since)):
        raise ManifestError(
            "the command line", "", "say what to look for: --id, --client, --sender, --recipient, --since"
        )
    if message_id and not is_id(message_id):
        raise ManifestError("the command line", "--id", f"{options.id!r} is not an id (26 letters and digits)")
    default = now_ms - EVENTS_RETENTION_MS
    since = _moment(options.since, "--since", now_ms) if options.since else default
    until = _moment(options.until, "--until", now_ms) if options.until else now_ms
    if message_id:
        since = max(time_of(message_id) - SLACK_MS, 0)
    if since > until:
        raise ManifestError("the command line", "--until", "lies before --since")
    return Query(since, until, message_id, options.client or "", options.sender or "", options.recipient or "")


def _moment(text: str, option: str, now_ms: int) -> int:
    if re.fullmatch(DURATION_PATTERN, text):
        return now_ms - int(seconds(text) * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ManifestError(
            "the command line", option, f"{text!r} is no time, as 2026-11-22T04:00:00+09:00 or 36h"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


# -- the answer


async def _collect(
    log: Log | SqliteLogView,
    topics: Topics,
    stores: tuple[str, ...],
    query: Query,
    matcher: Matcher,
    *,
    with_content: bool,
) -> tuple[list[Event], int | None, str, dict[str, bytes]]:
    """The events, the time of the oldest one there, the log's id, and the messages.

    Read twice: what fits may stand behind what belongs to it, and not everything of a week fits into memory.
    """
    since_ms = max(query.since_ms - SLACK_MS, 0)
    await log.start()
    try:
        first_ms: int | None = None
        ids: set[str] = set()
        async for records in read_topic(log, topics.events, since_ms):
            for record in records:
                first_ms = record.timestamp_ms if first_ms is None else min(first_ms, record.timestamp_ms)
                ids |= {event.id for event in events_of(record) if matcher.fits(event)}
        prefixes = {one[:PREFIX] for one in ids}
        near: list[Event] = []
        begin_ms = min([since_ms, *(time_of(one) - SLACK_MS for one in ids if is_id(one))])
        if ids:
            async for records in read_topic(log, topics.events, max(begin_ms, 0)):
                for record in records:
                    near += [event for event in events_of(record) if event.id[:PREFIX] in prefixes]
        found = family(ids, near)
        content = await held_messages(log, topics, stores, {event.id for event in found}) if with_content else {}
        return found, first_ms, await log.instance_id(), content
    finally:
        await log.close()


def _files(
    query: Query,
    found: list[Event],
    content: dict[str, bytes],
    notes: tuple[str, ...],
    instance: str,
    hostname: str,
) -> tuple[Manifest, dict[str, bytes]]:
    files = {
        "events.jsonl": b"".join(msgspec.json.encode(event) + b"\n" for event in found),
        "story.txt": _story(found).encode("utf-8", "backslashreplace"),
        **{f"messages/{one}.eml": data for one, data in sorted(content.items())},
    }
    asked = {
        "since": date_time(query.since_ms),
        "until": date_time(query.until_ms),
        "id": query.id,
        "client": query.client,
        "sender": query.sender,
        "recipient": query.recipient,
    }
    messages, sessions = counts(found)
    manifest = Manifest(
        made=date_time(int(time.time() * 1000)),
        host=socket.gethostname(),
        version=f"gatepost {__version__}",
        installation=f"{hostname}, log {instance}",
        query={name: value for name, value in asked.items() if value},
        events=len(found),
        messages=messages,
        sessions=sessions,
        complete=not notes,
        notes=notes,
        files=tuple(part(name, data) for name, data in files.items()),
    )
    return manifest, files


def _story(found: list[Event]) -> str:
    lines = []
    for event in found:
        lines.append(
            f"{date_time(event.at_ms)}  {event.id}  {event.service} {event.kind}  {event.recipient}".rstrip()
        )
        lines.append(f"    {MEANING.get(event.kind, '')}")
        lines += [f"    {name}: {value}" for name, value in event.facts.items() if value]
        if event.parent:
            lines.append(f"    came out of: {event.parent}")
    return "\n".join(lines) + "\n"


def _as_tar(manifest: Manifest, files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    everything = {MANIFEST: msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n", **files}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in everything.items():
            info = tarfile.TarInfo(f"evidence/{name}")
            info.size, info.mtime, info.mode = len(data), int(time.time()), 0o600
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _as_json(manifest: Manifest, files: dict[str, bytes]) -> bytes:
    events = [json.loads(line) for line in files["events.jsonl"].splitlines()]
    document = {"manifest": msgspec.to_builtins(manifest), "events": events}
    return json.dumps(document, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace") + b"\n"


def _as_text(manifest: Manifest, files: dict[str, bytes]) -> bytes:
    facts = {**msgspec.to_builtins(manifest), "notes": "; ".join(manifest.notes) or "none"}
    facts["query"] = ", ".join(f"{name} {value}" for name, value in manifest.query.items())
    facts["complete"] = "yes" if manifest.complete else "no, see notes"
    facts["files"] = "story below; sha256 of its events as JSON lines " + manifest.files[0].sha256
    head = "\n".join(f"{name}: {value}" for name, value in facts.items())
    return head.encode("utf-8", "backslashreplace") + b"\n\n" + files["story.txt"]


_FORMS: Final = {"tar": _as_tar, "json": _as_json, "text": _as_text}


def _say(file: Path, data: bytes, manifest: Manifest) -> None:
    print(
        f"{file}: {manifest.events} events of {manifest.messages} accepted messages and of {manifest.sessions} "
        f"sessions with refusals; sha256 {part(file.name, data).sha256}"
    )
    for note in manifest.notes:
        print(f"warning: it may not be whole: {note}", file=sys.stderr)
