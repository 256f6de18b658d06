"""Bodies: in a record's value when small, by reference to pieces in a content topic when not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from gatepost.core.envelope import ContentRef


class ContentDamaged(Exception):
    """The pieces do not give the body that the reference promises (size or SHA-256)."""


class Body(Protocol):
    """A body in memory or in an unlinked file. Read-only once it is handed over."""

    @property
    def size(self) -> int: ...

    @property
    def sha256(self) -> str: ...

    def whole(self) -> bytes:
        """All of it; callers that may meet large bodies use pieces()."""

    def pieces(self, size: int) -> AsyncIterator[bytes]:
        """The bytes in pieces of `size` (the last one shorter)."""

    def close(self) -> None: ...


class BodyWriter(Protocol):
    """Takes a body as it arrives, hashing it on the way; a large one goes to a file. Raises OSError (no room)."""

    @property
    def size(self) -> int: ...

    def write(self, data: bytes) -> None:
        """Add a piece without waiting. It is kept as it is, so it must not be a mutable buffer."""

    def finish(self) -> Body:
        """Return the body; the writer is of no more use then."""

    def abandon(self) -> None:
        """Give up what was written; harmless after finish()."""


class ContentStream(Protocol):
    """A body that is written while it still arrives. Pieces of all bodies of a process take turns.

    A piece that waits for its turn is behind(); whoever brings the body then stops until on_room is called. No
    limit runs meanwhile: a piece's begins when it is handed to the log. Pieces of a body that is given up are
    never referred to and go with their topic's retention.
    """

    @property
    def behind(self) -> bool:
        """Whether a piece waits for its turn."""

    @property
    def failed(self) -> bool:
        """Whether the body cannot be written any more; what is brought then is dropped."""

    @property
    def handed_over(self) -> float:
        """When the last piece so far was handed to the log, in the event loop's time; 0 before the first."""

    def append(self, piece: bytes) -> None:
        """Take the next piece, of 1 to PIECE_SIZE bytes, without waiting."""

    async def finish(self, size: int, sha256: str) -> ContentRef:
        """Return the reference once every piece is durable. Raises LogUnavailable."""

    def abandon(self) -> None:
        """Give the body up; harmless after finish(). What is with the log already may still be written."""


class Content(Protocol):
    """Writes and reads bodies. Writing raises only LogUnavailable: what has no reference is no body."""

    def open(self, message_id: str, limit: float, on_room: Callable[[], None]) -> ContentStream:
        """Begin to write a body under its message's id; `limit` in seconds is for each piece, once it has its turn.

        `on_room` is called when the stream is no longer behind, and when it fails.
        """

    async def write(self, message_id: str, body: Body, limit: float) -> ContentRef:
        """Write a whole body durably within `limit` seconds."""

    async def read(self, ref: ContentRef, limit: float) -> Body:
        """Read a body back, checked by size and SHA-256. Raises ContentDamaged, LogGap, LogUnavailable."""
