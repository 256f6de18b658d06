"""Text forms of lookup tables: lines with a key and a value, comments, and Postfix's continued lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from gatepost.core.imports.plan import Place


class Pair(NamedTuple):
    key: str
    value: str
    place: Place


def logical_lines(text: str, file: str, *, continued: bool) -> Iterator[tuple[str, Place]]:
    """Lines without comments and empty ones; with `continued`, a line that begins with a blank goes on the last.

    The place is that of the first line (Postfix: postconf(5), access(5)).
    """
    current, place = "", Place(file, 0, "")
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.rstrip()
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if continued and line[0] in " \t" and current:
            current += " " + line.strip()
            place = Place(file, place.line, current)
            continue
        if current:
            yield current, place
        current, place = line.strip(), Place(file, number, line.strip())
    if current:
        yield current, place


def pairs(text: str, file: str, *, continued: bool) -> Iterator[Pair]:
    """Key and value of each line; a line of a key alone has an empty value."""
    for line, place in logical_lines(text, file, continued=continued):
        key, *value = re.split(r"[ \t]+", line, maxsplit=1)
        yield Pair(key, value[0] if value else "", place)
