"""What routing and other steps want to know of a message's header, and dates as headers have them.

A message is kept as it was received; nothing here re-writes one. Sources: RFC 5322 2.1 (header, empty line,
body), 2.2 (fields, folding), RFC 5321 4.4 (trace).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import msgspec

from gatepost.core.headers import header_end as header_end
from gatepost.core.headers import read_header


def fields(message: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (name in lower case, raw value with its folding) for each field of the header, in order.

    A line that is no field and continues none is passed over: broken mail is read as far as it goes.
    """
    for field in read_header(message):
        yield field.name, field.value


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
