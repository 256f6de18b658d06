"""State: one small memory that all edges share, so that a client meets the same answer at each of them.

Greylisting, bans and appends in doubt are kinds of it. An edge answers from what it has in memory, in O(1) and
without waiting; what another edge has written is there within two seconds while the log works. Implemented by
backends/state_memory (one process, for tests) and backends/state_log (the topic `state`); one contract suite
(tests/contracts/state) runs over both. Nobody's readiness waits for it: an edge that has just started, or whose log
is away, knows less than the others for a while, and every user of this port must be right with that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, TypeVar

import msgspec

# A key of more characters, or a value of more bytes, is refused: at a million entries each byte is a megabyte.
MAX_KEY: Final = 512
MAX_VALUE: Final = 4096

T = TypeVar("T")
V = TypeVar("V")


class StateError(Exception):
    """The shared memory did not do what was asked; the message is for logs and operators."""


class StateUnavailable(StateError):
    """It is certain that nothing was changed and nothing will be."""


class StateUnknown(StateError):
    """A change did not end within its limit: it may take place yet."""


class TakeUnknown(StateUnknown, Generic[V]):
    """A take() did not end within its limit.

    `outcome` can be awaited, with any limit, for what take() would have returned; it raises StateUnavailable when
    the entry was not touched, StateUnknown when that cannot be found out any more.
    """

    def __init__(self, message: str, outcome: Awaitable[V | None]) -> None:
        super().__init__(message)
        self.outcome = outcome


class Kind(msgspec.Struct, Generic[T], frozen=True):
    """One sort of entries: what its values are and how many are remembered.

    `name` is a part of the key in the log: lower case letters and "-". `type` is a msgspec Struct with `v` as its
    version; fields are added with defaults. Beyond `most` entries those that were written first are forgotten
    first, in memory only. An entry takes about 300 bytes with a key of 30 characters and a value of 60.
    """

    name: str
    type: type[T]
    version: int
    most: int


class State(Protocol):
    """The entries of every kind. `until_ms` and `now_ms` are in ms since 1970, limits in seconds."""

    def get(self, kind: Kind[T], key: str, now_ms: int) -> T | None:
        """Return the value, or None when there is none or it has expired."""

    @property
    def current(self) -> bool:
        """Whether what was written before the start has been read, and the log works as far as is known."""

    def size(self, kind: Kind[T]) -> int:
        """Return how many entries are in memory; some of them may have expired."""

    async def put(self, kind: Kind[T], key: str, value: T, until_ms: int, limit: float) -> None:
        """Write an entry durably. It can be read, here too, once it has come back from the log (some ms).

        Raises StateUnavailable, StateUnknown; ValueError for a key or value that is too large.
        """

    def put_soon(self, kind: Kind[T], key: str, value: T, until_ms: int) -> None:
        """Write an entry when it is convenient, without waiting; it may be lost, which is counted.

        Of several for one key in a short time only the last is written.
        """

    async def take(self, kind: Kind[T], key: str, limit: float) -> T | None:
        """Remove an entry and return it; None when it is not there, or another call anywhere took it first.

        Of any number of calls on any number of edges one gets it. What another edge has put must have come here
        before, else it may be lost. The value may have expired. Raises StateUnavailable, TakeUnknown.
        """

    async def remove(self, kind: Kind[T], key: str, limit: float) -> None:
        """Remove an entry, there or not. Raises StateUnavailable, StateUnknown."""

    def on_change(self, kind: Kind[T], callback: Callable[[str, T | None], None]) -> None:
        """Have `callback` called with (key, value) for each entry that comes in, (key, None) when one goes.

        It is called at once for what is there already, and again for an entry that is written again.
        """
