"""The members of a tar, read as a stream: ustar, GNU's long names and POSIX.1-2001's extended headers (pax)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from gatepost.core.archives.budget import OpaqueArchive
from gatepost.core.archives.streams import CHUNK, Stream

BLOCK: Final = 512
# Octets of an extended header or long name that are read.
MAX_EXTENDED: Final = 64 * 1024

_ZERO: Final = bytes(BLOCK)


class Member(NamedTuple):
    """`size` octets follow in the stream, of which `skip` must be called for those that were not read."""

    name: str
    size: int
    is_file: bool


class Tar:
    """Iterate over members; between two of them read() gives the content. Raises OpaqueArchive."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = self._padding = 0

    def read(self, octets: int) -> bytes:
        data = self._stream.read(min(octets, self._left))
        self._left -= len(data)
        return data

    def _skip(self) -> None:
        left, self._left = self._left + self._padding, 0
        while left:
            data = self._stream.read(min(left, CHUNK))
            if not data:
                raise OpaqueArchive("damaged")
            left -= len(data)

    def __iter__(self) -> Iterator[Member]:
        long_name = ""
        self._padding = 0
        while block := self._stream.read(BLOCK):
            if block == _ZERO:
                continue  # the end, or padding between archives in a row
            if len(block) < BLOCK or not _is_sound(block):
                raise OpaqueArchive("damaged")
            size, kind = _number(block[124:136]), block[156:157]
            self._left, self._padding = size, -size % BLOCK
            if kind in (b"L", b"x"):
                data = self.read(min(size, MAX_EXTENDED))
                found = _pax_path(data) if kind == b"x" else data.partition(b"\0")[0]
                long_name = found.decode("utf-8", "replace") or long_name
            elif kind not in (b"g", b"K"):
                yield Member(long_name or _name(block), size, kind in (b"0", b"\0", b"7"))
                long_name = ""
            self._skip()


def _is_sound(block: bytes) -> bool:
    """The checksum: of all octets, its own counted as blanks."""
    return sum(block[:148]) + 256 + sum(block[156:]) == _number(block[148:156])


def _number(field: bytes) -> int:
    """Octal, or binary where the first bit is set (GNU). Raises OpaqueArchive."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.replace(b"\0", b" ").split()[0], 8) if field.strip(b" \0") else 0
    except ValueError:
        raise OpaqueArchive("damaged") from None


def _name(block: bytes) -> str:
    name, prefix = (field.partition(b"\0")[0] for field in (block[:100], block[345:500]))
    if prefix and block[257:263] == b"ustar\0":
        name = prefix + b"/" + name
    return name.decode("utf-8", "replace")


def _pax_path(data: bytes) -> bytes:
    """The path of an extended header: records of `length key=value` and a newline."""
    at = 0
    while 0 <= (blank := data.find(b" ", at)) <= at + 10:
        length = data[at:blank]
        if not length.isdigit() or int(length) <= blank - at:
            break
        record = data[blank + 1 : at + int(length)]
        if record.startswith(b"path="):
            return record[5:].rstrip(b"\n")
        at += int(length)
    return b""
