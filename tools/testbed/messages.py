"""Messages to look into, and a visitor that writes down what a walker tells of them."""

from __future__ import annotations

import io
import itertools
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from gatepost.core.checks.attachments import AttachmentPolicy, AttachmentTable
from gatepost.core.checks.charset import CharsetPolicy
from gatepost.core.content_search import ContentSearch
from gatepost.core.mime.part import Defect, Part, Uuencoded
from gatepost.core.mime.walker import Walker

DATA = Path(__file__).resolve().parent.parent.parent / "tests/data/messages"


class Notes:
    """What was told, in order; the octets of one body together."""

    def __init__(self) -> None:
        self.all: list[tuple[Any, ...]] = []

    def part(self, part: Part) -> bool:
        self.all.append(("part", part.number, part.depth, part.begin, part.body, part.type, part.names))
        return True

    def body(self, part: Part, piece: bytes) -> None:
        if self.all[-1][:2] == ("body", part.number):
            self.all[-1] = ("body", part.number, self.all[-1][2] + piece)
        else:
            self.all.append(("body", part.number, piece))

    def ended(self, part: Part) -> None:
        self.all.append(("ended", part.number, part.end))

    def uuencoded(self, file: Uuencoded) -> None:
        self.all.append(("file", file.name, file.begin, file.end))

    def defect(self, defect: Defect) -> None:
        self.all.append(("defect", defect))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [one[1:] for one in self.all if one[0] == kind]

    @property
    def defects(self) -> set[Defect]:
        return {one[0] for one in self.of("defect")}

    @property
    def names(self) -> list[str]:
        return [name for one in self.of("part") for name in one[5]]


def pieces_of(message: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(min(cut, len(message)) for cut in cuts), len(message)]
    return [message[start:end] for start, end in itertools.pairwise(places)]


def walk(message: bytes, cuts: Sequence[int] = (), max_depth: int = 20, max_parts: int = 1000) -> Notes:
    notes = Notes()
    walker = Walker(notes, max_depth, max_parts)
    for piece in pieces_of(message, cuts):
        walker.feed(piece)
    walker.finish()
    return notes


def search(
    message: bytes,
    policy: AttachmentPolicy | None = None,
    charset: CharsetPolicy | None = None,
    cuts: Sequence[int] = (),
) -> ContentSearch:
    found = ContentSearch(
        None if policy is None else AttachmentTable(policy), charset, lambda: cast(BinaryIO, io.BytesIO())
    )
    for piece in pieces_of(message, cuts):
        found.feed(piece)
    found.finish()
    return found


def crlf(text: bytes | str) -> bytes:
    octets = text.encode() if isinstance(text, str) else text
    return re.sub(rb"\r\n|\r|\n", b"\r\n", octets)


def samples() -> Iterator[tuple[str, bytes]]:
    """The 548 real messages, with the line ends that they have on their way."""
    for path in sorted((DATA / "cpython").glob("msg_*")):
        yield path.name, crlf(path.read_bytes())
    with tarfile.open(DATA / "spamassassin-easy-ham-1-500.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                yield member.name, crlf(file.read())
