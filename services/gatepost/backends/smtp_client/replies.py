"""Replies of a remote host: parsed from its bytes, with limits on what it may send.

Grammar implemented (RFC 5321 4.2, as lenient as real hosts need):

    Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
    Reply-code = %x32-35 %x30-39 %x30-39

A bare LF as line end is taken (old hosts do that), and the lines of one reply must have one code. In front of a
text may stand an enhanced status code (RFC 2034 4, RFC 3463 2), which counts only when its class fits.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

# RFC 5321 4.5.3.1.5 allows 512 octets a line; some hosts explain themselves at length.
MAX_LINE: Final = 2000
# EHLO's is the longest honest one, with some 20 lines.
MAX_LINES: Final = 100
# Complete replies that nobody has read: more than one for each recipient of a message is a flood.
MAX_UNREAD: Final = 2000
# Characters in them: 2,000 replies of 100 long lines each would be 400 MB.
MAX_UNREAD_TEXT: Final = 1024 * 1024
# What of a reply's text is kept, in characters: it goes into logs, events and DSNs.
MAX_TEXT: Final = 1000

_LINE: Final = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_ENHANCED: Final = re.compile(r"^([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[ \t]+|$)")


class GarbledReply(Exception):
    """What came is no reply; the connection cannot be used any more."""


class Reply(msgspec.Struct, frozen=True):
    """One reply: its lines' texts without code, decoded and free of control characters."""

    code: int
    lines: tuple[str, ...]

    @property
    def length(self) -> int:
        """Characters of all lines."""
        return sum(map(len, self.lines))

    @property
    def enhanced(self) -> str:
        """The enhanced status code of the first line, or "" where there is none of the code's class."""
        found = _ENHANCED.match(self.lines[0])
        return found.group(1) if found and found.group(1)[0] == str(self.code)[0] else ""

    @property
    def text(self) -> str:
        """The texts in one line without the enhanced codes, at most MAX_TEXT characters."""
        texts = (_ENHANCED.sub("", line, count=1).strip() for line in self.lines)
        return " ".join(text for text in texts if text)[:MAX_TEXT]


class ReplyParser:
    """Takes bytes as they arrive, gives complete replies in order."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._code = 0
        self._lines: list[str] = []

    @property
    def pending(self) -> bool:
        """Whether a part of a reply has come."""
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> list[Reply]:
        """Return the replies that are complete now. Raises GarbledReply."""
        self._buffer += data
        replies = []
        while (end := self._buffer.find(b"\n", 0, MAX_LINE + 1)) >= 0:
            line = bytes(self._buffer[:end]).removesuffix(b"\r")
            del self._buffer[: end + 1]
            reply = self._take(line)
            if reply is not None:
                replies.append(reply)
        if len(self._buffer) > MAX_LINE:
            raise GarbledReply(f"a reply line is longer than {MAX_LINE} octets")
        return replies

    def _take(self, line: bytes) -> Reply | None:
        found = _LINE.fullmatch(line)
        if found is None:
            raise GarbledReply("a line is no SMTP reply")
        code, separator, text = int(found.group(1)), found.group(2), found.group(3) or b""
        if self._lines and code != self._code:
            raise GarbledReply("the lines of one reply have different codes")
        self._code = code
        self._lines.append(_readable(text))
        if len(self._lines) > MAX_LINES:
            raise GarbledReply(f"a reply has over {MAX_LINES} lines")
        if separator == b"-":
            return None
        lines, self._lines = tuple(self._lines), []
        return Reply(code, lines)


def _readable(text: bytes) -> str:
    decoded = text.decode("utf-8", "replace")
    return decoded if decoded.isprintable() else "".join(c if c.isprintable() else " " for c in decoded)
