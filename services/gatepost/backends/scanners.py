"""core.ports.scanner.Scanners over rspamd and clamd; the library for HTTP is loaded when rspamd is first asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from gatepost.backends import scanner_clamd
from gatepost.core.ports.scanner import ScanFacts, ScannerAddress, ScannerKind, ScanResult

if TYPE_CHECKING:
    from gatepost.backends.scanner_rspamd import Rspamd


class RealScanners:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._rspamd: Rspamd | None = None

    async def scan(self, where: ScannerAddress, facts: ScanFacts, pieces: AsyncIterator[bytes]) -> ScanResult:
        match where.kind:
            case ScannerKind.CLAMD:
                return await scanner_clamd.scan(where.address, pieces)
            case ScannerKind.RSPAMD:
                return await self._open_rspamd().scan(where.address, where.settings, facts, pieces)

    def _open_rspamd(self) -> Rspamd:
        if self._rspamd is None:
            from gatepost.backends.scanner_rspamd import Rspamd

            self._rspamd = Rspamd()
        return self._rspamd

    async def close(self) -> None:
        if self._rspamd is not None:
            await self._rspamd.close()
