"""Octets out of a file, or out of a compressed one, never more at once than were asked for."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Any, BinaryIO, Final, Protocol

from gatepost.core.archives.budget import FREE, MAX_RATIO, Budget, OpaqueArchive
from gatepost.core.archives.kinds import Kind

CHUNK: Final = 64 * 1024
# What a decoder of xz may take (its largest preset wants 65 MiB for decoding).
XZ_MEMORY: Final = 80 * 2**20


class Stream(Protocol):
    def read(self, octets: int) -> bytes:
        """At most so many; fewer only at the end. Raises OpaqueArchive."""


class Decompressed:
    """What a file of kind gz, bz2 or xz holds, all its members in a row."""

    def __init__(self, file: BinaryIO, kind: Kind, budget: Budget) -> None:
        self._file, self._kind, self._budget = file, kind, budget
        self._decoder: Any = None
        self._raw = b""
        self._read = self._written = 0
        self._over = False

    def read(self, octets: int) -> bytes:
        parts: list[bytes] = []
        while octets > 0 and not self._over:
            part = self._more(min(octets, CHUNK))
            parts.append(part)
            octets -= len(part)
        return b"".join(parts)

    def _more(self, most: int) -> bytes:
        if not self._raw and (self._decoder is None or self._wants):
            self._raw = self._file.read(CHUNK)
            self._read += len(self._raw)
            if not self._raw:
                self._over = True
                return self._last(most)
        if self._decoder is None:
            self._decoder = self._fresh()
        part = bytes(self._decoder.decompress(self._raw, most))
        self._raw = self._left()
        if self._decoder.eof:
            self._decoder = None  # another member may follow; padding behind the last one is zeros
            if not self._raw.strip(b"\0"):
                self._raw = b""
        self._written += len(part)
        self._budget.decoded(len(part))
        if self._written > FREE and self._written > self._read * MAX_RATIO:
            raise OpaqueArchive("it unpacks to very much more than it is")
        return part

    def _last(self, most: int) -> bytes:
        """The file is over: what the decoder still has."""
        if self._decoder is None:
            return b""
        part = bytes(self._decoder.decompress(b"", most)) if self._kind is Kind.GZIP else b""
        if not part and not self._decoder.eof:
            raise OpaqueArchive("it has no end")
        self._over = not part
        self._budget.decoded(len(part))
        return part

    def _fresh(self) -> Any:
        if self._kind is Kind.GZIP:
            return zlib.decompressobj(zlib.MAX_WBITS | 16)
        return bz2.BZ2Decompressor() if self._kind is Kind.BZIP2 else lzma.LZMADecompressor(memlimit=XZ_MEMORY)

    @property
    def _wants(self) -> bool:
        return True if self._kind is Kind.GZIP else bool(self._decoder.needs_input)

    def _left(self) -> bytes:
        """What was handed in and not used."""
        if self._decoder.eof:
            return bytes(self._decoder.unused_data)
        return bytes(self._decoder.unconsumed_tail) if self._kind is Kind.GZIP else b""


class Ahead:
    """A stream of which the first octets were read already."""

    def __init__(self, head: bytes, stream: Stream) -> None:
        self._head, self._stream = head, stream

    def read(self, octets: int) -> bytes:
        first, self._head = self._head[:octets], self._head[octets:]
        return first + self._stream.read(octets - len(first)) if len(first) < octets else first
