"""Fields of several parts with semicolons between them, folded where lines would be long (RFC 5322 2.2.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_WIDTH: Final = 76  # RFC 5322 2.1.1 asks for 78
# What stays on one line: a quoted-string and a comment are never folded inside.
_WORD: Final = re.compile(r'(?:[^\s"(]|"(?:[^"\\]|\\.)*"|\([^()]*\))+|["(]')


def folded(name: str, parts: Sequence[str]) -> str:
    """Return the field with its CR LF. `name` with its colon; each part begins a line, long ones are folded on."""
    lines = [f"{name} {parts[0]}"]
    for part in parts[1:]:
        lines[-1] += ";"
        lines.append("\t")
        for word in _words(part):
            glue = " " if lines[-1] != "\t" else ""
            if glue and len(lines[-1]) + 1 + len(word) > _WIDTH:
                lines.append("\t ")
                glue = ""
            lines[-1] += glue + word
    return "\r\n".join(lines) + "\r\n"


def _words(text: str) -> list[str]:
    """Split at spaces outside of quoted-strings and comments."""
    return _WORD.findall(text)
