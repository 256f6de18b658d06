"""What one look into a message's archives may cost, whatever they claim to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MAX_ENTRIES: Final = 10_000
# Octets that may be decoded in all: what a packed file of the size limit of a message honestly has inside is not
# needed, only the names and the archives within.
MAX_OCTETS: Final = 64 * 2**20
# Decoded for one octet of archive, above the first MiB: text reaches 20, a bomb 1000.
MAX_RATIO: Final = 200
FREE: Final = 2**20
MAX_DEPTH: Final = 4


class OpaqueArchive(Exception):
    """It cannot be looked into, or not as far as it goes. `reason` is for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Budget:
    """Counts down for all archives of a message together. `late` tells whether the time is up."""

    def __init__(self, late: Callable[[], bool]) -> None:
        self._late = late
        self._entries, self._octets = MAX_ENTRIES, MAX_OCTETS

    def entry(self) -> None:
        """Another name. Raises OpaqueArchive."""
        self._entries -= 1
        if self._entries < 0:
            raise OpaqueArchive("more files than are looked at")
        self._in_time()

    def decoded(self, octets: int) -> None:
        """So much was unpacked. Raises OpaqueArchive."""
        self._octets -= octets
        if self._octets < 0:
            raise OpaqueArchive("too large inside")
        self._in_time()

    def _in_time(self) -> None:
        if self._late():
            raise OpaqueArchive("it takes too long to look into")
