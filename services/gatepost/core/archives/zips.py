"""The entries of a zip: names from its directory and from each entry's own header, which need not agree."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from typing import BinaryIO, Final

from gatepost.core.archives.budget import OpaqueArchive

# The directory is read as a whole: 10,000 entries with names of 50 octets.
MAX_DIRECTORY: Final = 2 * 2**20
_END: Final = 22
_COMMENT: Final = 65_535
_END_64: Final = 56
_LOCATOR_64: Final = 20
_UTF_8: Final = 0x800
# Methods that are unpacked with a limit on each step.
METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """Open a zip whose directory is not too large to be read. Raises OpaqueArchive and zipfile's errors."""
    if _directory_size(file) > MAX_DIRECTORY:
        raise OpaqueArchive("more files than are looked at")
    return zipfile.ZipFile(file)


def _directory_size(file: BinaryIO) -> int:
    """As zipfile will believe it: of the end record, or of that of zip64 in front of it (APPNOTE 4.3.14 to 16)."""
    size = file.seek(0, 2)
    begin = max(0, size - _END - _COMMENT)
    file.seek(begin)
    tail = file.read()
    at = len(tail) - _END
    if at < 0 or tail[at : at + 4] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END:
        raise OpaqueArchive("damaged")
    found = int.from_bytes(tail[at + 12 : at + 16], "little")
    locator = begin + at - _LOCATOR_64
    if locator >= _END_64:
        file.seek(locator)
        if file.read(4) == b"PK\x06\x07":
            file.seek(locator - _END_64)
            record = file.read(_END_64)
            if record.startswith(b"PK\x06\x06"):
                return max(found if found != 0xFFFFFFFF else 0, int.from_bytes(record[40:48], "little"))
    return found


def names_of(file: BinaryIO, entry: zipfile.ZipInfo) -> Iterator[str]:
    """All names of an entry: the directory's, with what stands behind a NUL, and its own header's."""
    yield entry.orig_filename
    if entry.filename != entry.orig_filename:
        yield entry.filename
    try:
        file.seek(entry.header_offset)
        head = file.read(30)
        flags, length = struct.unpack("<H", head[6:8])[0], struct.unpack("<H", head[26:28])[0]
    except (OSError, ValueError, struct.error):
        return
    own = file.read(length).decode("utf-8" if flags & _UTF_8 else "cp437", "replace")
    if own != entry.orig_filename:
        yield own
