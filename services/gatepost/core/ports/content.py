"""Bodies: in a record's value when small, by reference to pieces in a content topic when not."""

from __future__ import annotations

from collections.abc import AsyncIterator
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


class Content(Protocol):
    """Writes and reads bodies. Raises the log port's LogUnavailable, LogUnknown and LogGap."""

    async def write(self, message_id: str, body: Body, limit: float) -> ContentRef:
        """Write a body durably in pieces under its message's id."""

    async def read(self, ref: ContentRef, limit: float) -> Body:
        """Read a body back, checked against its size and SHA-256. Raises ContentDamaged."""
