"""Port: access tables kept outside of the configuration, because they are large or change by themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from gatepost.core.access.table import AccessTable


class AccessTables(Protocol):
    """Gives the last good version of each table. A version with a fault is told in the log and never used."""

    async def start(self) -> None:
        """Begin to look after the tables."""

    async def close(self) -> None: ...

    def want(self, tables: Mapping[str, float]) -> None:
        """These tables are looked after from now on (file -> s between two looks), all others are forgotten."""

    def table(self, file: str) -> AccessTable | None:
        """The last good version; None as long as there was none. Never blocks."""

    def on_change(self, callback: Callable[[], None]) -> None:
        """`callback` is called, in the event loop, after a table got a new version."""
