"""The hash of a body that arrives in pieces: every canonical form and length that signatures want, in one pass.

Sources: RFC 6376 3.4.3 (simple), 3.4.4 (relaxed), 3.4.5 (l=), 3.7 (the body hash). Nothing of the body is kept
but a few flags and counts, whatever its lines look like, and the work is linear in its size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from gatepost.core.authentication.dkim.canonical_header import Canonical, single_spaced

# Line ends that were held back go out in pieces of at most this many, so that they never fill the memory.
_LINE_ENDS_AT_ONCE: Final = 32_768
_CRLF: Final = b"\r\n"


class BodyHash(msgspec.Struct, frozen=True):
    """One hash that a signature wants. `limit`: the octets of l=, None for the whole canonical body."""

    canonical: Canonical
    limit: int | None = None
    algorithm: str = "sha256"


class BodyDigest(msgspec.Struct, frozen=True):
    """`hashed`: octets that were hashed, less than the limit where the body is shorter; `length`: all there are."""

    digest: bytes
    hashed: int
    length: int


class _Digester(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...

    def copy(self) -> _Digester: ...


class _Sink:
    """A running hash that is copied where the canonical body reaches a length that somebody asked for."""

    def __init__(self, algorithm: str, limits: Iterable[int]) -> None:
        self._running: _Digester = hashlib.new(algorithm, usedforsecurity=False)
        self._ahead = sorted(set(limits), reverse=True)
        self._copies: dict[int, tuple[bytes, int]] = {}
        self.length = 0

    def feed(self, data: bytes) -> None:
        while self._ahead and self.length + len(data) >= self._ahead[-1]:
            limit = self._ahead.pop()
            at = limit - self.length
            self._running.update(data[:at])
            self.length, data = limit, data[at:]
            self._copies[limit] = (self._running.digest(), limit)
        self._running.update(data)
        self.length += len(data)

    def digest(self, limit: int | None) -> BodyDigest:
        whole = (self._running.digest(), self.length)
        digest, hashed = whole if limit is None else self._copies.get(limit, whole)
        return BodyDigest(digest, hashed, self.length)


class _Simple:
    """Empty lines at the end of the body are left out and one CR LF is put there (RFC 6376 3.4.3)."""

    def __init__(self, sinks: list[_Sink]) -> None:
        self._sinks = sinks
        self._line_ends = 0  # CR LF that are held back: they count only when something follows
        self._carriage_return = False  # the last octet was a CR: its LF may come with the next piece
        self._has_content = False

    def update(self, chunk: bytes) -> None:
        data = b"\r" + chunk if self._carriage_return else chunk
        self._carriage_return = data.endswith(b"\r")
        self._put(data[:-1] if self._carriage_return else data)

    def finish(self) -> None:
        if self._carriage_return:
            self._put(b"\r")
        self._feed(_CRLF)

    def _put(self, data: bytes) -> None:
        held = _line_ends_at_end(data)
        content = data[: len(data) - 2 * held]
        if content:
            self._release()
            self._feed(content)
            self._has_content = True
        self._line_ends += held

    def _release(self) -> None:
        while self._line_ends:
            count = min(self._line_ends, _LINE_ENDS_AT_ONCE)
            self._feed(_CRLF * count)
            self._line_ends -= count

    def _feed(self, data: bytes) -> None:
        for sink in self._sinks:
            sink.feed(data)


class _Relaxed(_Simple):
    """Also: no white space at the end of a line, one space for every other run; empty stays empty (3.4.4)."""

    def __init__(self, sinks: list[_Sink]) -> None:
        super().__init__(sinks)
        self._space = False  # white space that is held back: it counts only when the line goes on

    def update(self, chunk: bytes) -> None:
        held = (b" " if self._space else b"") + (b"\r" if self._carriage_return else b"")
        data = single_spaced(held + chunk)
        self._carriage_return = data.endswith(b"\r")
        data = data[:-1] if self._carriage_return else data
        self._space = data.endswith(b" ")
        data = data[:-1] if self._space else data
        self._put(data.replace(b" \r\n", _CRLF))

    def finish(self) -> None:
        if self._carriage_return:
            self._put(b" \r" if self._space else b"\r")
        if self._has_content:
            self._feed(_CRLF)


def _line_ends_at_end(data: bytes) -> int:
    """Count the CR LF that the data end with."""
    tail = data[len(data.rstrip(_CRLF)) :].replace(_CRLF, b".")
    return len(tail) - len(tail.rstrip(b"."))


class BodyHasher:
    """Takes a body piece by piece, as it is received, and gives the digests of all wanted forms of it.

    Two canonical forms at most are made, and each is hashed once for each algorithm, however many signatures
    there are: the cost of a message is bounded.
    """

    def __init__(self, wanted: Iterable[BodyHash]) -> None:
        groups: dict[tuple[Canonical, str], list[int]] = {}
        for one in wanted:
            limits = groups.setdefault((one.canonical, one.algorithm), [])
            if one.limit is not None:
                limits.append(one.limit)
        self._sinks = {key: _Sink(key[1], limits) for key, limits in groups.items()}
        forms = ((Canonical.SIMPLE, _Simple), (Canonical.RELAXED, _Relaxed))
        sinks = {how: [sink for key, sink in self._sinks.items() if key[0] is how] for how in Canonical}
        self._forms = [form(sinks[how]) for how, form in forms if sinks[how]]

    def update(self, chunk: bytes) -> None:
        for form in self._forms:
            form.update(chunk)

    def finish(self) -> BodyHashes:
        """End the body; nothing may be given afterwards."""
        for form in self._forms:
            form.finish()
        return BodyHashes(self._sinks)


class BodyHashes:
    """The digests of one body."""

    def __init__(self, sinks: dict[tuple[Canonical, str], _Sink]) -> None:
        self._sinks = sinks

    def get(self, wanted: BodyHash) -> BodyDigest:
        """Raises KeyError for a hash that the BodyHasher was not asked for."""
        return self._sinks[wanted.canonical, wanted.algorithm].digest(wanted.limit)


def hash_body(body: bytes, wanted: Iterable[BodyHash]) -> BodyHashes:
    """Hash a body that is in memory."""
    hasher = BodyHasher(wanted)
    hasher.update(body)
    return hasher.finish()
