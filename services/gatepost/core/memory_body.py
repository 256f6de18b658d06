"""A body that lies in memory: what a record carries inline, as the content port's Body."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator


class MemoryBody:
    """Wraps bytes; hashing is done when asked for."""

    __slots__ = ("_data", "_sha256")

    def __init__(self, data: bytes, sha256: str = "") -> None:
        self._data, self._sha256 = data, sha256

    @property
    def size(self) -> int:
        return len(self._data)

    @property
    def sha256(self) -> str:
        if not self._sha256:
            self._sha256 = hashlib.sha256(self._data).hexdigest()
        return self._sha256

    def whole(self) -> bytes:
        return self._data

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), size):
            yield self._data[start : start + size]

    def close(self) -> None:
        return None
