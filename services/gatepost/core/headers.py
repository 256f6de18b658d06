"""The header of a message as bytes exactly as received, cut into fields: what signatures are made of.

Nothing is decoded and nothing is repaired, so that the fields joined again are the header without what is no
field. Sources: RFC 5322 2.1 (header, empty line, body), 2.2 (fields), 2.2.3 (folding). Only CR LF ends a line,
as at the door of the gateway. One pass, linear in the header's size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import msgspec

# RFC 5322 3.6.8 ftext, and the white space before the colon that 4.5 (obsolete syntax) allows.
_FIELD_NAME = re.compile(rb"([\x21-\x39\x3b-\x7e]+)[ \t]*:")


class Field(msgspec.Struct, frozen=True, gc=False):
    """One field. `raw`: all its octets with folding, without the last CR LF. `colon`: where the value begins."""

    name: bytes  # in lower case
    raw: bytes
    colon: int

    @property
    def value(self) -> bytes:
        """What stands after the colon, with its folding."""
        return self.raw[self.colon :]


def header_end(message: bytes) -> int:
    """Return the offset of the empty line's CRLF, or the length where there is no empty line."""
    if message.startswith(b"\r\n"):
        return 0
    end = message.find(b"\r\n\r\n")
    return len(message) if end < 0 else end + 2


def read_header(message: bytes) -> tuple[Field, ...]:
    """Return the fields of a message, or of its header alone, in order.

    A line that is no field and continues none is passed over with its continuations: broken mail is read as
    far as it goes.
    """
    return tuple(field for _, field in _pieces(message[: header_end(message)]) if field is not None)


def field_of(raw: bytes) -> Field:
    """Return one field from its octets, with or without the last CR LF. Raises ValueError when it is none."""
    fields = read_header(raw.removesuffix(b"\r\n"))
    if len(fields) != 1:
        raise ValueError("not one header field")
    return fields[0]


def without_fields(header: bytes, unwanted: Callable[[Field], bool]) -> bytes:
    """Return a header (without the empty line) less some fields; every other octet stays as it is."""
    kept = [raw for raw, field in _pieces(header) if field is None or not unwanted(field)]
    return b"\r\n".join(kept)


def spans(header: bytes, wanted: Callable[[Field], bool]) -> tuple[tuple[int, int], ...]:
    """Return (offset, octets with the last CR LF) of some fields of a header; neighbours are one span."""
    found: list[tuple[int, int]] = []
    at = 0
    for raw, field in _pieces(header):
        octets = min(len(raw) + 2, len(header) - at)
        if field is not None and wanted(field):
            if found and sum(found[-1]) == at:
                found[-1] = (found[-1][0], found[-1][1] + octets)
            else:
                found.append((at, octets))
        at += octets
    return tuple(found)


def _pieces(header: bytes) -> Iterator[tuple[bytes, Field | None]]:
    """Cut a header before every line that continues none; joined with CR LF the pieces are the header again."""
    lines: list[bytes] = []
    for line in header.split(b"\r\n"):
        if lines and line[:1] not in (b" ", b"\t"):
            yield _piece(lines)
            lines = []
        lines.append(line)
    yield _piece(lines)


def _piece(lines: list[bytes]) -> tuple[bytes, Field | None]:
    raw = b"\r\n".join(lines)
    named = _FIELD_NAME.match(lines[0])
    return raw, Field(named.group(1).lower(), raw, named.end()) if named else None
