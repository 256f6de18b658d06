"""A message as it leaves: as received, but for what its envelope says to leave out and put in (docs/adr/0011)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import NamedTuple

from gatepost.core.ports.content import Body

Span = tuple[int, int]
Insert = tuple[int, str]


class _Edit(NamedTuple):
    """At `offset` so many octets are left out, and a text stands there."""

    offset: int
    octets: int
    text: bytes


def leaving(body: Body, strip: Sequence[Span], insert: Sequence[Insert] = ()) -> Body:
    """The body less the spans (offset, octets), with the texts (offset, text); itself without any.

    Both are in order; spans do not overlap. Where both are at one offset, the text stands for the span.
    """
    return LeavingBody(body, strip, insert) if strip or insert else body


def leaving_bytes(data: bytes, strip: Sequence[Span], insert: Sequence[Insert] = ()) -> bytes:
    """The same for a message that is in memory."""
    return _edited(data, 0, _edits(strip, insert), last=True) if strip or insert else data


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Spans in order, and those that overlap or touch as one."""
    found: list[Span] = []
    for offset, octets in sorted(spans):
        if found and offset <= sum(found[-1]):
            found[-1] = (found[-1][0], max(sum(found[-1]), offset + octets) - found[-1][0])
        else:
            found.append((offset, octets))
    return tuple(found)


class LeavingBody:
    """core.ports.content.Body over another one, which it closes. Nothing is copied but the pieces that are cut."""

    __slots__ = ("_body", "_edits")

    def __init__(self, body: Body, strip: Sequence[Span], insert: Sequence[Insert] = ()) -> None:
        self._body, self._edits = body, _edits(strip, insert)

    @property
    def size(self) -> int:
        return self._body.size + sum(len(edit.text) - edit.octets for edit in self._edits)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.whole()).hexdigest()

    def whole(self) -> bytes:
        return _edited(self._body.whole(), 0, self._edits, last=True)

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        """Pieces of at most `size`; those of which something is left out are shorter."""
        at, total = 0, self._body.size
        end = max(edit.offset + edit.octets for edit in self._edits)
        async for piece in self._body.pieces(size):
            last = at + len(piece) >= total
            left = piece if at > end else _edited(piece, at, self._edits, last=last)
            at += len(piece)
            for start in range(0, len(left), size):
                yield left[start : start + size] if len(left) > size else left

    def close(self) -> None:
        self._body.close()


def _edits(strip: Sequence[Span], insert: Sequence[Insert]) -> tuple[_Edit, ...]:
    edits = [_Edit(offset, 0, text.encode("utf-8")) for offset, text in insert]
    edits += [_Edit(offset, octets, b"") for offset, octets in strip]
    return tuple(sorted(edits, key=lambda edit: (edit.offset, edit.octets)))


def _edited(piece: bytes, at: int, edits: Sequence[_Edit], *, last: bool) -> bytes:
    """A piece that begins at octet `at` of its message, edited. `last`: texts behind its end belong to it too."""
    kept, begin, end = [], 0, at + len(piece)
    for offset, octets, text in edits:
        if octets:
            first, behind = max(offset - at, begin), min(offset + octets - at, len(piece))
            if first < behind:
                kept.append(piece[begin:first])
                begin = behind
        elif at <= offset < end or (last and offset >= end):
            place = max(offset - at, begin)
            kept += (piece[begin:place], text)
            begin = min(place, len(piece))
    return b"".join((*kept, piece[begin:])) if kept else piece
