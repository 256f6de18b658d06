"""What kind of archive some octets begin, and which names promise one."""

from __future__ import annotations

from enum import Enum
from typing import Final

from gatepost.core.mime.file_names import extension

HEAD: Final = 512  # octets by which a kind is told; the tar's mark is the last


class Kind(Enum):
    ZIP = "zip"
    TAR = "tar"
    GZIP = "gz"
    BZIP2 = "bz2"
    XZ = "xz"
    RAR = "rar"
    TNEF = "tnef"
    OTHER = "other"
    """Known, and cannot be looked into."""


_MARKS: Final = (
    (0, b"PK\x03\x04", Kind.ZIP),
    (0, b"PK\x05\x06", Kind.ZIP),
    (0, b"PK00PK\x03\x04", Kind.ZIP),
    (0, b"\x1f\x8b\x08", Kind.GZIP),
    (0, b"BZh", Kind.BZIP2),
    (0, b"\xfd7zXZ\x00", Kind.XZ),
    (0, b"Rar!\x1a\x07", Kind.RAR),
    (0, b"\x78\x9f\x3e\x22", Kind.TNEF),
    (257, b"ustar", Kind.TAR),
    (0, b"7z\xbc\xaf\x27\x1c", Kind.OTHER),
    (0, b"MSCF", Kind.OTHER),
    (0, b"\x60\xea", Kind.OTHER),  # arj
    (2, b"-lh", Kind.OTHER),
    (7, b"**ACE**", Kind.OTHER),
    (0, b"\x28\xb5\x2f\xfd", Kind.OTHER),  # zstd
    (0, b"\x1f\x9d", Kind.OTHER),  # compress
)
_NAMES: Final = frozenset(
    "zip tar gz tgz bz2 tbz tbz2 xz txz rar 7z cab arj lzh lha ace z zst jar".split()  # noqa: SIM905
)


def archive_kind(head: bytes, name: str = "") -> Kind | None:
    """Return the kind by the first octets; a name that promises a zip may have it behind something else."""
    for at, mark, kind in _MARKS:
        if head.startswith(mark, at):
            return kind
    if extension(name) in ("zip", "jar"):
        return Kind.ZIP
    return Kind.OTHER if is_archive_name(name) else None


def is_archive_name(name: str) -> bool:
    """Whether a cleaned file name promises an archive."""
    return extension(name) in _NAMES
