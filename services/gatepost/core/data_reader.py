"""Reads the content behind DATA or BDAT from pieces of any size: finds its end, undoes dot-stuffing, finds faults.

Rules, named where they act:
 R1  only CR LF "." CR LF ends the content (RFC 5321 4.1.1.4); the CR LF of the DATA line counts as the first
 R2  a dot that begins a line is removed (RFC 5321 4.5.2)
 R3  a CR or LF that is no part of CR LF is a fault (RFC 5321 2.3.8), or is made CR LF where that is wanted;
     it never helps to end the content, and what was a bare line end counts as one for R2
 R4  a NUL is a fault (RFC 5322 2.2)
 R5  sizes are counted without the stuffed dots and the end (RFC 1870 4)
 R6  behind BDAT a chunk ends with its last octet and dots mean nothing (RFC 3030 2); the chunks of a message are
     one content, so that a CR may end one and its LF begin the next. R3 and R4 hold as behind DATA, since
     BINARYMIME is not offered

After a fault the content is read on to its end, so that not one of its bytes is taken for a command. Which of
several faults is named does not depend on the chunks: the first of Fault's order, wherever it stands.
"""

from __future__ import annotations

from enum import Enum
from io import IncrementalNewlineDecoder
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

    @property
    def header_complete(self) -> bool:
        """Whether the body has begun, so that `header` is all of it."""
        return not self._in_header

    def feed(self, chunk: bytes) -> bytes:
        """Take the next chunk (not empty) and return the content in it; nothing once there is a fault.

        What may still turn out to be a part of the end (at most four bytes) is kept for the next call.
        """
        data = self._tail + chunk
        # Much of what is large (base64) has no dot, and one octet is found a hundred times faster than three.
        dot = data.find(b".")
        if dot >= 0:
            dot = data.find(b"\r\n.", max(dot - 2, 0))
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
        cleaned = self._with_line_ends(piece)
        if stuffed or cleaned is not piece:
            cleaned = cleaned.replace(b"\r\n.", b"\r\n")  # R2
        piece = cleaned
        if self._first:
            self._first = False
            return piece[2:]  # the DATA line's CR LF
        return piece

    def _with_line_ends(self, piece: bytes) -> bytes:
        """The piece itself, or what it is with its bare line ends made whole; nothing when they are a fault."""
        if b"\0" in piece:
            self._blame(Fault.NUL)  # R4
        if _only_crlf(piece):
            return piece
        if not self._normalize:
            self._blame(Fault.BARE_NEWLINE)  # R3
            return b""
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")

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


class ChunkReader(DataReader):
    """The same for the chunks of BDAT: expect() each, then feed until `finished`, which is true between chunks.

    `complete` once the last chunk has been read; `declared` is the octets of all chunks so far.
    """

    __slots__ = ("_last", "_left", "declared")

    def __init__(self, size_limit: int, header_limit: int, *, normalize: bool = False) -> None:
        super().__init__(size_limit, header_limit, normalize=normalize)
        self._tail = b""
        self._first = False
        self.finished = True
        self._left = self.declared = 0
        self._last = False

    @property
    def complete(self) -> bool:
        return self._last and self.finished

    def expect(self, octets: int, *, last: bool) -> None:
        """A chunk of so many octets follows. What is too large is known before the first of them."""
        self._left, self._last, self.rest = octets, last, b""
        self.declared += octets
        self.finished = False
        if self.declared > self._size_limit:
            self._blame(Fault.SIZE)

    def feed(self, chunk: bytes) -> bytes:
        """As of DataReader; empty only for a chunk of no octets."""
        mine, self.rest = chunk[: self._left], chunk[self._left :]
        self._left -= len(mine)
        self.finished = self._left == 0
        data = self._tail + mine
        kept = 1 if data.endswith(b"\r") and not self.complete else 0
        self._tail = data[len(data) - kept :]
        piece = data[: len(data) - kept]
        if not piece or self.fault is Fault.BARE_NEWLINE:
            return b""
        return self._check(self._with_line_ends(piece))


def _only_crlf(piece: bytes) -> bool:
    """Whether every CR and LF is part of a CR LF. One pass in C, four times as fast as counting the three."""
    decoder = IncrementalNewlineDecoder(None, translate=False)
    decoder.decode(piece.decode("latin-1"), final=True)  # Latin-1: one character for each octet
    return decoder.newlines in (None, "\r\n")


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
