"""A message as it leaves: as it was received, less what the envelope says to leave out (docs/adr/0011)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence

from gatepost.core.ports.content import Body

Span = tuple[int, int]


def leaving(body: Body, strip: Sequence[Span]) -> Body:
    """The body less the spans (offset, octets), which are in order and do not overlap; itself without any."""
    return LeavingBody(body, strip) if strip else body


def leaving_bytes(data: bytes, strip: Sequence[Span]) -> bytes:
    """The same for a message that is in memory."""
    return _without(data, 0, strip) if strip else data


class LeavingBody:
    """core.ports.content.Body over another one, which it closes. Nothing is copied but the pieces that are cut."""

    __slots__ = ("_body", "_strip")

    def __init__(self, body: Body, strip: Sequence[Span]) -> None:
        self._body, self._strip = body, tuple(strip)

    @property
    def size(self) -> int:
        return self._body.size - sum(octets for _, octets in self._strip)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.whole()).hexdigest()

    def whole(self) -> bytes:
        return _without(self._body.whole(), 0, self._strip)

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        """Pieces of at most `size`; those of which something is left out are shorter."""
        at, end = 0, sum(self._strip[-1])
        async for piece in self._body.pieces(size):
            left = piece if at >= end else _without(piece, at, self._strip)
            at += len(piece)
            if left:
                yield left

    def close(self) -> None:
        self._body.close()


def _without(piece: bytes, at: int, strip: Sequence[Span]) -> bytes:
    """A piece that begins at octet `at` of its message, less what of the spans lies in it."""
    kept, begin = [], 0
    for offset, octets in strip:
        first, last = max(offset - at, 0), min(offset + octets - at, len(piece))
        if first < last:
            kept.append(piece[begin:first])
            begin = last
    return b"".join((*kept, piece[begin:])) if begin else piece
