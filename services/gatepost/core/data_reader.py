"""Reads the content behind DATA from chunks of any size: finds its end, undoes dot-stuffing, finds faults.

Rules, named where they act:
 R1  only CR LF "." CR LF ends the content (RFC 5321 4.1.1.4); the CR LF of the DATA line counts as the first
 R2  a dot that begins a line is removed (RFC 5321 4.5.2)
 R3  a CR or LF that is no part of CR LF is a fault (RFC 5321 2.3.8), or is made CR LF where that is wanted;
     it never helps to end the content, and what was a bare line end counts as one for R2
 R4  a NUL is a fault (RFC 5322 2.2)
 R5  sizes are counted without the stuffed dots and the end (RFC 1870 4)

After a fault the content is read on to its end, so that not one of its bytes is taken for a command. Which of
several faults is named does not depend on the chunks: the first of Fault's order, wherever it stands.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

_END: Final = b"\r\n.\r\n"
_EMPTY_LINE: Final = b"\r\n\r\n"


class Fault(Enum):
    """Why content is refused, the gravest first."""

    BARE_NEWLINE = "bare-newline"
    NUL = "nul"
    HEADER_SIZE = "header-size"
    SIZE = "size"


_GRAVITY: Final = {fault: gravity for gravity, fault in enumerate(Fault)}


class DataReader:
    """Feed it chunks until `finished`; `rest` is what followed the end.

    `size` counts octets of content, `header` are the header's bytes (complete once the body has begun or the
    content is finished), `eight_bit` tells whether an octet above 127 came. After a fault `header` and `size` mean
    nothing. All limits are in octets.
    """

    __slots__ = (
        "_first",
        "_header_limit",
        "_in_header",
        "_normalize",
        "_size_limit",
        "_tail",
        "eight_bit",
        "fault",
        "finished",
        "header",
        "rest",
        "size",
    )

    def __init__(self, size_limit: int, header_limit: int, *, normalize: bool = False) -> None:
        self._size_limit, self._header_limit, self._normalize = size_limit, header_limit, normalize
        self._tail = b"\r\n"  # R1: of the DATA line
        self._first = True
        self._in_header = True
        self.header: bytes | bytearray = b""
        self.finished = False
        self.rest = b""
        self.fault: Fault | None = None
        self.size = 0
        self.eight_bit = False

    def feed(self, chunk: bytes) -> bytes:
        """Take the next chunk (not empty) and return the content in it; nothing once there is a fault.

        What may still turn out to be a part of the end (at most four bytes) is kept for the next call.
        """
        data = self._tail + chunk
        dot = data.find(b"\r\n.")
        end = -1 if dot < 0 else data.find(_END, dot)
        if end >= 0:
            self.finished = True
            self.rest = data[end + 5 :]
            self._tail = b""
            stop = end + 2
        else:
            kept = _undecided(data)
            stop = len(data) - kept
            self._tail = data[stop:]
        if stop == 0 or self.fault is Fault.BARE_NEWLINE:
            return b""
        return self._check(self._clean(data[:stop], stuffed=0 <= dot < stop - 2))

    def _clean(self, piece: bytes, *, stuffed: bool) -> bytes:
        """Judge line ends and undo the stuffing. A piece never begins or ends between a CR and its LF."""
        if b"\0" in piece:
            self._blame(Fault.NUL)  # R4
        ends = piece.count(b"\n")
        if not ends == piece.count(b"\r\n") == piece.count(b"\r"):  # R3
            if not self._normalize:
                self._blame(Fault.BARE_NEWLINE)
                return b""
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
            stuffed = True
        if stuffed:
            piece = piece.replace(b"\r\n.", b"\r\n")  # R2
        if self._first:
            self._first = False
            return piece[2:]  # the DATA line's CR LF
        return piece

    def _check(self, piece: bytes) -> bytes:
        """Count what was read against the limits."""
        self.size += len(piece)  # R5
        if self._in_header:
            self._read_header(piece)
        if self.size > self._size_limit:
            self._blame(Fault.SIZE)
        if self.fault is not None:
            return b""
        if not self.eight_bit and not piece.isascii():
            self.eight_bit = True
        return piece

    def _read_header(self, piece: bytes) -> None:
        header = self.header
        if not header:
            header = piece
            end = 0 if piece.startswith(b"\r\n") else piece.find(_EMPTY_LINE)
        else:
            if isinstance(header, bytes):
                header = bytearray(header)
            before = len(header)
            header += piece
            end = header.find(_EMPTY_LINE, before - 3 if before > 3 else 0)
        if end >= 0:
            self._in_header = False
            header = header[: end + 2] if end else b""
        self.header = header
        if len(header) > self._header_limit:
            self._blame(Fault.HEADER_SIZE)
            self._in_header = False
            self.header = b""

    def _blame(self, fault: Fault) -> None:
        if self.fault is None or _GRAVITY[fault] < _GRAVITY[self.fault]:
            self.fault = fault


def _undecided(data: bytes) -> int:
    """How many bytes at the end may belong to a line end, or to the end of the content, that is not all here."""
    if data.endswith((b"\n", b"\r", b".")):
        if data.endswith(b"\r\n.\r"):
            return 4
        if data.endswith(b"\r\n."):
            return 3
        if data.endswith(b"\r\n"):
            return 2
        if not data.endswith(b"."):
            return 1
    return 0
