"""The lines of one part's header while they come, also where lines are among them that are no fields."""

from __future__ import annotations

import re
from typing import Final

from gatepost.core.headers import Field, read_header

CONTENT_FIELD: Final = re.compile(rb"content-[a-z-]{1,40}[ \t]*:", re.IGNORECASE)
# A header as most are, and in it the fields that matter here, with their folding.
WHOLE_HEADER: Final = re.compile(rb"(?:[!-9;-~]++[ \t]*+:[^\r\n]*+\r\n(?:[ \t][^\r\n]*+\r\n)*+)++(?=\r\n)")
_MATTERS: Final = re.compile(
    rb"^(?:content-|mime-version)[^\r\n]*+(?:\r\n[ \t][^\r\n]*+)*+", re.IGNORECASE | re.MULTILINE
)
_FIELD: Final = re.compile(rb"[!-9;-~]+[ \t]*:")


class HeaderLines:
    """The lines of a header. `junk`: where one stands that is no field (R3); from there all are `swallowed`."""

    __slots__ = ("_in_extra", "_lines", "junk", "octets", "swallowed")

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._in_extra = False
        self.junk = -1
        self.octets = 0
        self.swallowed: list[bytes] = []

    def add(self, line: bytes, at: int) -> None:
        """Take a line with its CR LF that begins at `at`."""
        self.octets += len(line)
        folded = line.startswith((b" ", b"\t"))
        if self.junk < 0:
            if _FIELD.match(line) or (folded and self._lines) or self._is_separator(line):
                self._lines.append(line)
                return
            self.junk = at
        self.swallowed.append(line)
        self._in_extra = bool(CONTENT_FIELD.match(line)) or (folded and self._in_extra)
        if self._in_extra:
            self._lines.append(line)

    def take(self, lines: bytes) -> None:
        """Take lines that are fields, all of them."""
        self.octets += len(lines)
        self._lines.append(lines)

    def _is_separator(self, line: bytes) -> bool:
        """The "From " line of a mailbox file, which some programs leave in front."""
        return not self._lines and line.startswith((b"From ", b">From "))

    def fields(self) -> tuple[Field, ...]:
        """The fields that matter for a part, in order."""
        return read_header(b"\r\n".join(_MATTERS.findall(b"".join(self._lines))))
