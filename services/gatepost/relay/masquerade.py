"""Mail of our senders leaves with masqueraded addresses; what is stored stays as it was received."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from gatepost.core.headers import header_end
from gatepost.core.masquerading import MasqueradePlan, MasqueradeTable, masquerade_header, masquerade_path
from gatepost.core.ports.content import Body
from gatepost.core.ports.transport import OutgoingMessage
from gatepost.core.tables import Tables

MAX_HEADER: Final = 2**20  # four times the default of smtp.limits.headerBytes; a larger header leaves as it is
_PIECE: Final = 64 * 1024


class Masquerades:
    """The masquerades of a configuration; without any, nothing costs anything."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        plans = (domain.masquerade for domain in tables.configuration.domains)
        self._covering = MasqueradeTable(plan for plan in plans if plan is not None)

    def return_path(self, reverse_path: str) -> str:
        """The reverse-path with which a message leaves, so where what becomes of it is reported to."""
        plan = self._plan(reverse_path)
        return reverse_path if plan is None else masquerade_path(reverse_path, plan)

    async def apply(self, message: OutgoingMessage) -> OutgoingMessage:
        """The message as it leaves. Its body is still the caller's to close."""
        plan = self._plan(message.reverse_path)
        if plan is None:
            return message
        return msgspec.structs.replace(
            message,
            reverse_path=masquerade_path(message.reverse_path, plan),
            prepend=masquerade_header(message.prepend, plan),
            body=await masqueraded(message.body, plan),
        )

    def _plan(self, reverse_path: str) -> MasqueradePlan | None:
        """A served domain's own plan; else the plan that covers the domain. For the null sender the default's."""
        if not self._covering:
            return None
        name = reverse_path.rpartition("@")[2]
        config = self._tables.domain(name) if reverse_path else self._tables.outbound_default
        if config is not None:
            return config.masquerade
        return self._covering.covering(name) if reverse_path else None


async def masqueraded(body: Body, plan: MasqueradePlan) -> Body:
    """The body with the sender's header fields rewritten; itself where there is nothing to hide."""
    header = await _header(body)
    rewritten = masquerade_header(header, plan)
    return body if rewritten == header else ReheadedBody(body, len(header), rewritten)


async def _header(body: Body) -> bytes:
    """The header without the empty line; nothing where it does not end within MAX_HEADER octets."""
    start = b""
    async for piece in body.pieces(_PIECE):
        start += piece
        if start.startswith(b"\r\n") or b"\r\n\r\n" in start:
            break
        if len(start) > MAX_HEADER:
            return b""
    return start[: header_end(start)]


class ReheadedBody:
    """core.ports.content.Body: `header` in place of the first `octets` of another body, which stays its owner's."""

    __slots__ = ("_body", "_header", "_octets")

    def __init__(self, body: Body, octets: int, header: bytes) -> None:
        self._body, self._octets, self._header = body, octets, header

    @property
    def size(self) -> int:
        return self._body.size - self._octets + len(self._header)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.whole()).hexdigest()

    def whole(self) -> bytes:
        return self._header + self._body.whole()[self._octets :]

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        """Pieces of at most `size`; those around the end of the header are shorter."""
        for start in range(0, len(self._header), size):
            yield self._header[start : start + size]
        at = 0
        async for piece in self._body.pieces(size):
            rest = piece[max(0, self._octets - at) :]
            at += len(piece)
            if rest:
                yield rest

    def close(self) -> None:
        self._body.close()
