"""`gatepost bans list|add|remove`: who is kept away, and the administrator's own hand in it."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from gatepost.backends.ban_requests import BanRequest, carry_out, lay_down
from gatepost.backends.settings_file import load_settings
from gatepost.backends.state_entries import Entries
from gatepost.backends.state_log import LogState
from gatepost.cli.assembly import Assembly, now_ms
from gatepost.cli.looking import log_of, read_topic, settings_file
from gatepost.core.bans import BAN, Ban, BanCause, BanError, key_of, subject_of
from gatepost.core.manifest.quantities import DURATION_PATTERN, seconds
from gatepost.core.manifest.read import ManifestError
from gatepost.core.manifest.settings import Settings
from gatepost.core.message import date_time
from gatepost.core.ports.log import LogMisconfigured, LogUnavailable, Record
from gatepost.core.ports.state import StateError
from gatepost.core.topics import Topics

LOOK_LIMIT_S: Final = 120.0
TAKEN_LIMIT_S: Final = 15.0  # the running process looks once a second
LONGEST_S: Final = 720 * 3600.0
_MOST_REASON: Final = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="bans", metavar="list|add|remove", required=True)
    listing = commands.add_parser("list", help="all bans in force, those that last longest first")
    listing.add_argument("--output", choices=("text", "json"), default="text")
    adding = commands.add_parser("add", help="keep a network or a sender away at all edges")
    adding.add_argument("--for", dest="lasting", default="4h", metavar="DURATION", help='as "4h" (at most 720h)')
    adding.add_argument("--reason", default="", metavar="TEXT")
    removing = commands.add_parser("remove", help="lift a ban")
    for command in (adding, removing):
        command.add_argument(
            "subject",
            metavar="SUBJECT",
            help="an address, a network (192.0.2.0/24), account:NAME or sender:ADDRESS",
        )
    for command in (listing, adding, removing):
        command.add_argument("--config", required=True, type=Path, metavar="FILE", help="gatepost.yaml")
        command.add_argument("--state", type=Path, metavar="DIR")


def run(options: argparse.Namespace) -> int:
    file = settings_file(options.config)
    settings = load_settings(file, options.state)
    if options.bans == "list":
        return _list(asyncio.run(_all(settings)), as_json=options.output == "json")
    request = _request(options)
    if options.bans == "remove" and key_of(request.subject) not in asyncio.run(_all(settings)):
        print(f"{request.subject} is not banned")
        return 1
    _change(settings, file.parent, request)
    print(f"{request.subject} is {'no longer banned' if request.ban is None else f'banned for {options.lasting}'}")
    return 0


def _request(options: argparse.Namespace) -> BanRequest:
    try:
        subject = subject_of(key_of(options.subject))
    except BanError as error:
        raise ManifestError("the command line", "SUBJECT", str(error)) from None
    if options.bans == "remove":
        return BanRequest(subject)
    since = now_ms()
    lasting = _lasting(options.lasting)
    reason = "".join(c for c in options.reason if c.isprintable())[:_MOST_REASON]
    return BanRequest(subject, Ban(since, since + int(lasting * 1000), BanCause.ADMINISTRATOR, reason))


def _lasting(text: str) -> float:
    try:
        value = seconds(text) if re.fullmatch(DURATION_PATTERN, text) else 0.0
    except ValueError:
        value = 0.0
    if not 1 <= value <= LONGEST_S:
        raise ManifestError("the command line", "--for", f'{text!r}: a duration as "4h", from 1s to 720h')
    return value


# -- looking


async def _all(settings: Settings) -> dict[str, Ban]:
    """Every ban in force, by its key."""
    topics, found = Topics(settings.log.topic_prefix), dict[str, Ban]()
    entries = Entries(BAN)

    def changed(key: str, ban: Ban | None) -> None:
        if ban is None:
            found.pop(key, None)
        else:
            found[key] = ban

    entries.on_change(changed)
    log = log_of(settings, "bans")
    async with asyncio.timeout(LOOK_LIMIT_S):
        await log.start()
        try:
            async for records in read_topic(log, topics.state):
                for record in records:
                    _apply(entries, record)
        except LogMisconfigured:
            return {}  # a log that no edge has worked with yet
        finally:
            await log.close()
    return {key: ban for key, ban in found.items() if ban.until_ms > now_ms()}


def _apply(entries: Entries, record: Record) -> None:
    kind, _, key = (record.key or b"").decode("utf-8", "surrogateescape").partition("/")
    if kind != BAN.name or not key:
        return
    if record.value:
        entries.take_in(key, record.value, now_ms())
    else:
        entries.remove(key)


def _list(found: dict[str, Ban], *, as_json: bool) -> int:
    bans = sorted(found.items(), key=lambda one: (-one[1].until_ms, one[0]))
    if as_json:
        rows: list[dict[str, Any]] = [{"subject": subject_of(key), **msgspec.to_builtins(ban)} for key, ban in bans]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return 0
    if not bans:
        print("Nobody is banned.")
        return 0
    width = max(7, *(len(subject_of(key)) for key, _ in bans))
    print(f"{'subject':<{width}}  {'cause':<13}  {'until':<31}  reason")
    for key, ban in bans:
        about = f"{ban.reason}{f' ({ban.id})' if ban.id else ''}"
        print(f"{subject_of(key):<{width}}  {ban.cause.value:<13}  {date_time(ban.until_ms):<31}  {about}".rstrip())
    return 0


# -- changing


def _change(settings: Settings, base: Path, request: BanRequest) -> None:
    """Write it, by oneself or by the process that owns an embedded log. Raises LogError, OSError."""
    try:
        asyncio.run(_write(settings, base, request))
    except StateError as error:
        raise LogUnavailable(str(error)) from None
    except LogUnavailable:
        if settings.log.sqlite is None or not _handed_over(Path(settings.state), request):
            raise


async def _write(settings: Settings, base: Path, request: BanRequest) -> None:
    async with Assembly(settings, base, "bans") as parts:
        await parts.connect_log(wait=False)
        state = LogState(parts.log, parts.topics.state, (BAN,), now_ms)
        await carry_out(request, state, parts.events, now_ms())


def _handed_over(state_folder: Path, request: BanRequest) -> bool:
    """Leave it to the process that has the embedded log; whether it took it."""
    file = lay_down(state_folder, request)
    deadline = time.monotonic() + TAKEN_LIMIT_S
    while file.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    taken = not file.exists()
    file.unlink(missing_ok=True)
    return taken
