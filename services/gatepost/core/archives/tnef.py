"""The names of files in Outlook's winmail.dat (MS-OXTNEF 2.1: a signature, a key, then attributes in a row)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

from gatepost.core.archives.budget import OpaqueArchive

_TITLE: Final = 0x00018010  # attAttachTitle
MAX_TITLE: Final = 4096


def tnef_names(file: BinaryIO) -> Iterator[str]:
    """The titles of its attachments. Raises OpaqueArchive when it is damaged."""
    file.seek(6)
    while head := file.read(9):
        # level (1), attribute (4), length (4), the data, and a checksum (2)
        if len(head) < 9 or head[0] not in (1, 2):
            raise OpaqueArchive("damaged")
        attribute, length = int.from_bytes(head[1:5], "little"), int.from_bytes(head[5:9], "little")
        if attribute == _TITLE:
            title = file.read(min(length, MAX_TITLE))
            yield title.partition(b"\0")[0].decode("utf-8", "replace")
            length -= len(title)
        else:
            yield ""
        file.seek(length + 2, 1)
