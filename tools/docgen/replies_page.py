"""docs/replies.md: every check, every reply and every status of a delivery with its meaning, from the tables."""

from __future__ import annotations

import importlib
from pathlib import Path

import gatepost.core
from gatepost.core.delivery_meanings import DELIVERY
from gatepost.core.meanings import CHECKS, Meaning
from gatepost.core.reply import Reply
from gatepost.core.reply_meanings import REPLIES

SERVICES = Path(gatepost.__file__).parent
FOLDERS = ("core", "edge")

INTRODUCTION = """\
# Replies and what they mean

A refusal is `CODE ENHANCED text (check) ID`: 4xx means later, 5xx means never. The word in brackets is the check
that decided; the id is the session's, and the log line, the event and `gatepost trace ID` carry it too.
`gatepost meaning CHECK` prints what stands here. `<address>: ` in front of a text quotes what the client named.

This page is written from the tables in the code (`make docs`).

"""

DELIVERIES = """\
## After the 250: statuses of a delivery

What stands in a notification, in `gatepost trace` and in `gatepost queue`. The first digit says whether it is tried
again (4) or given up (5). A next hop's own words stand behind its name; their meaning is its administrator's.

| status | meaning | the sender | the administrator |
|---|---|---|---|
"""


def all_replies() -> dict[str, Reply]:
    """Every reply that is a constant of core or the edge, by the constant's name. Raises ValueError for twins."""
    found: dict[str, Reply] = {}
    for folder in FOLDERS:
        for file in sorted((SERVICES / folder).rglob("*.py")):
            if "Reply(" not in file.read_text("utf-8"):
                continue
            module = ".".join(file.relative_to(SERVICES.parent).with_suffix("").parts)
            for name, value in vars(importlib.import_module(module)).items():
                if isinstance(value, Reply) and found.setdefault(name, value) != value:
                    raise ValueError(f"two replies have the name {name}")
    return found


def replies_page() -> str:
    replies = all_replies()
    lines = [INTRODUCTION]
    for check, meaning in CHECKS.items():
        own = {name: reply for name, reply in replies.items() if reply.check == check}
        lines.append(_section(check, meaning, own))
    positive = {name: reply for name, reply in replies.items() if reply.positive}
    lines.append("## Not refusals\n\n" + _table(positive))
    rows = [
        f"| `{code}` | {one.cause} | {one.sender} | {one.administrator} |\n"
        for code, one in sorted(DELIVERY.items())
    ]
    return "".join(lines) + DELIVERIES + "".join(rows)


def _sorted() -> list[tuple[str, Meaning]]:
    return sorted(DELIVERY.items(), key=lambda item: tuple(map(int, item[0].split("."))))


def _section(check: str, meaning: Meaning, replies: dict[str, Reply]) -> str:
    return (
        f"## `{check}`\n\n{meaning.cause}\n\n"
        f"* The sender: {meaning.sender}\n* The administrator: {meaning.administrator}\n\n{_table(replies)}"
    )


def _table(replies: dict[str, Reply]) -> str:
    if not replies:
        return ""
    rows = [
        f"| {reply.code} {reply.enhanced} | {reply.text} | {REPLIES.get(name, '')} |\n"
        for name, reply in sorted(replies.items(), key=lambda item: (item[1].code, item[0]))
    ]
    return "| reply | text | given |\n|---|---|---|\n" + "".join(rows) + "\n"
