"""Scanners for tests: what each says of a text in a message stands in a table."""

from __future__ import annotations

from collections.abc import AsyncIterator

from gatepost.core.ports.scanner import ScanFacts, ScannerAddress, ScannerUnavailable, ScanResult


class TableScanners:
    """core.ports.scanner.Scanners. `seen` are the facts of each scan, in their order."""

    def __init__(self) -> None:
        self._says: dict[str, list[tuple[bytes, ScanResult | Exception]]] = {}
        self.seen: list[ScanFacts] = []
        self.closed = False

    def add(self, address: str, text: bytes, says: ScanResult | Exception) -> None:
        """Let the scanner at `address` say this of messages with `text` in them; the first that fits counts."""
        self._says.setdefault(address, []).append((text, says))

    async def scan(self, where: ScannerAddress, facts: ScanFacts, pieces: AsyncIterator[bytes]) -> ScanResult:
        message = b"".join([piece async for piece in pieces])
        self.seen.append(facts)
        for text, says in self._says.get(where.address, ()):
            if text in message:
                if isinstance(says, Exception):
                    raise says
                return says
        raise ScannerUnavailable(f"nobody listens at {where.address}")

    async def close(self) -> None:
        self.closed = True
