"""The message as bytes: where its header ends, which fields it has, and lines that we add in front.

A message is kept as it was received; nothing here re-writes one. Sources: RFC 5322 2.1 (header, empty line,
body), 2.2 (fields, folding), RFC 5321 4.4 (trace).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator

import msgspec

_FIELD_NAME = re.compile(rb"([\x21-\x39\x3b-\x7e]+)[ \t]*:")


def header_end(message: bytes) -> int:
    """Return the offset of the empty line's CRLF, or the length where there is no empty line."""
    if message.startswith(b"\r\n"):
        return 0
    end = message.find(b"\r\n\r\n")
    return len(message) if end < 0 else end + 2


def fields(message: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (name in lower case, raw value with its folding) for each field of the header, in order.

    A line that is no field and continues none is passed over: broken mail is read as far as it goes.
    """
    name: bytes | None = None
    value = b""
    for line in message[: header_end(message)].split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            value += b"\r\n" + line
            continue
        if name is not None:
            yield name, value
        found = _FIELD_NAME.match(line)
        name, value = (found.group(1).lower(), line[found.end() :]) if found else (None, b"")
    if name is not None:
        yield name, value


class HeaderFacts(msgspec.Struct, frozen=True):
    """What routing wants to know of a header: loop counts and whether an automatic answer is proper."""

    received: int
    delivered_to: tuple[str, ...]
    message_id: str
    subject: str


def header_facts(message: bytes) -> HeaderFacts:
    received = 0
    delivered: list[str] = []
    message_id = subject = ""
    for name, value in fields(message):
        if name == b"received":
            received += 1
        elif name == b"delivered-to":
            delivered.append(value.strip().decode("utf-8", "replace").lower())
        elif name == b"message-id" and not message_id:
            message_id = value.strip().decode("utf-8", "replace")
        elif name == b"subject" and not subject:
            subject = value.strip().decode("utf-8", "replace")
    return HeaderFacts(received, tuple(delivered), message_id, subject)


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def date_time(now_ms: int) -> str:
    """Return RFC 5322 3.3 date-time in UTC for ms since 1970."""
    moment = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC)
    return (
        f"{_DAYS[moment.weekday()]}, {moment.day} {_MONTHS[moment.month - 1]} {moment.year} {moment:%H:%M:%S} +0000"
    )
