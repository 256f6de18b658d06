"""LDIF, the text form of a directory (RFC 2849): from a file's bytes to its entries.

Read: content records, and change records `add`, `modify` and `delete`, which are applied to what stands above
them (RFC 2849 wants a file of one sort; a file that is edited by appending to it works here). Not read, with
an error that names the line: renames, `attr:< url` values. Beyond the RFC, values may be plain UTF-8.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from gatepost.backends.directory_entry import Dn, parse_dn
from gatepost.core.manifest.read import ManifestError

# An LDIF this large (about 100,000 accounts) belongs into a directory server: it is held in memory whole.
MAX_LDIF_BYTES: Final = 64 * 1024 * 1024

# attrval-spec = AttributeDescription value-spec SEP; AttributeDescription = AttributeType [";" options]
_LINE: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9.-]*(?:;[A-Za-z0-9-]+)*):(.*)", re.DOTALL)


class LdifError(ManifestError):
    """A file that cannot be used, with the line."""

    def __init__(self, where: str, line: int, reason: str) -> None:
        super().__init__(where, f"line {line}" if line else "", reason)


class LdifEntry(msgspec.Struct, frozen=True):
    """One entry: its DN as written, and its attributes by name in lower case, values in the file's order."""

    dn: str
    attributes: dict[str, list[str]]


class _Line(msgspec.Struct, frozen=True):
    number: int
    name: str  # in lower case; "-" for the separator of modify, "" for an empty line
    value: str = ""


def read_ldif(data: bytes, where: str) -> list[LdifEntry]:
    """Return the entries of a file. Raises LdifError with `where` and the line of the first fault."""
    if len(data) > MAX_LDIF_BYTES:
        raise LdifError(where, 0, f"larger than {MAX_LDIF_BYTES} bytes")
    entries: dict[Dn, LdifEntry] = {}
    for record in _records(data, where):
        _apply(entries, record, where)
    return list(entries.values())


def _apply(entries: dict[Dn, LdifEntry], record: list[_Line], where: str) -> None:
    head, rest = record[0], record[1:]
    if head.name != "dn":
        raise LdifError(where, head.number, f"a record starts with dn:, not {head.name}:")
    dn = parse_dn(head.value)
    if any(not kind for rdn in dn for kind, _ in rdn):
        raise LdifError(where, head.number, f"{head.value!r} is no distinguished name (RFC 4514)")
    rest = [line for line in rest if line.name != "control"]
    change = rest[0].value.lower() if rest and rest[0].name == "changetype" else ""
    if change in ("", "add"):
        if dn in entries:
            raise LdifError(where, head.number, f"{head.value!r} is already in the file")
        entries[dn] = LdifEntry(head.value, _attributes(rest[1:] if change else rest, where))
    elif dn not in entries:
        raise LdifError(where, head.number, f"{head.value!r} is to be changed but not in the file")
    elif change == "delete":
        del entries[dn]
    elif change == "modify":
        _modify(entries[dn].attributes, rest[1:], where)
    else:
        raise LdifError(where, rest[0].number, f"changetype {change!r} is not supported (add, modify, delete)")


def _attributes(lines: list[_Line], where: str) -> dict[str, list[str]]:
    attributes: dict[str, list[str]] = {}
    for line in lines:
        if line.name in ("-", "dn", "changetype"):
            raise LdifError(where, line.number, f"{line.name!r} cannot stand here; is an empty line missing?")
        attributes.setdefault(line.name, []).append(line.value)
    return attributes


def _modify(attributes: dict[str, list[str]], lines: list[_Line], where: str) -> None:
    """Apply mod-specs: `add|delete|replace: name`, value lines of that name, and "-" (RFC 2849, mod-spec)."""
    position = 0
    while position < len(lines):
        head = lines[position]
        if head.name not in ("add", "delete", "replace"):
            raise LdifError(where, head.number, f"add:, delete: or replace: is needed, not {head.name}:")
        name, values = head.value.lower(), []
        position += 1
        while position < len(lines) and lines[position].name != "-":
            if lines[position].name != name:
                raise LdifError(where, lines[position].number, f"a value of {name} is needed")
            values.append(lines[position].value)
            position += 1
        position += 1  # the "-"; tolerated when missing at the end of a record
        old = [] if head.name == "replace" else attributes.get(name, [])
        if head.name == "delete":
            attributes[name] = [value for value in old if values and value not in values]
        else:
            attributes[name] = old + values


def _records(data: bytes, where: str) -> Iterator[list[_Line]]:
    record: list[_Line] = []
    first = True
    for line in _lines(data, where):
        if line.name:
            if first and line.name == "version":
                if line.value != "1":
                    raise LdifError(where, line.number, f"LDIF version {line.value!r} is not known (RFC 2849: 1)")
            else:
                record.append(line)
            first = False
        elif record:
            yield record
            record = []
    if record:
        yield record


def _lines(data: bytes, where: str) -> Iterator[_Line]:
    for number, text in _unfolded(data, where):
        if text in ("", "-"):
            yield _Line(number, text)
            continue
        found = _LINE.fullmatch(text)
        if found is None:
            raise LdifError(where, number, "a line is `name: value`, `name:: base64`, or starts with a space or #")
        yield _Line(number, found.group(1).lower(), _value(found.group(2), number, where))


def _value(text: str, number: int, where: str) -> str:
    """Read a value-spec: `: text`, `:: base64`; FILL is any number of spaces."""
    if text.startswith("<"):
        raise LdifError(where, number, "values from URLs are not read; write the value itself")
    if not text.startswith(":"):
        return text.lstrip(" ")
    try:
        raw = base64.b64decode(text[1:].strip(" "), validate=True)
    except (binascii.Error, ValueError):
        raise LdifError(where, number, "the value is not base 64") from None
    return raw.decode("utf-8", "surrogateescape")


def _unfolded(data: bytes, where: str) -> Iterator[tuple[int, str]]:
    """Yield (number of its first line, text) for each logical line, without comments.

    A line that begins with one space continues the one before (RFC 2849, note 2), also of a comment.
    """
    start = 0
    parts: list[bytes] = []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        line = raw.removesuffix(b"\r")
        if line.startswith(b" "):
            if not parts or parts == [b""]:
                raise LdifError(where, number, "a line that starts with a space continues one, but there is none")
            parts.append(line[1:])
            continue
        if parts and not parts[0].startswith(b"#"):
            yield start, _text(b"".join(parts), start, where)
        start, parts = number, [line]
    if parts and not parts[0].startswith(b"#"):
        yield start, _text(b"".join(parts), start, where)


def _text(line: bytes, number: int, where: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise LdifError(where, number, "the line is not UTF-8; write the value in base 64 after ::") from None
