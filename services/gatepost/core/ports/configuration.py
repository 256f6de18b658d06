"""Where the running configuration comes from: a directory of manifests, or the log's config topic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gatepost.core.configuration import Configuration


class ConfigurationSource(Protocol):
    """Gives the newest configuration that this program can run, and says when it changes."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    @property
    def current(self) -> Configuration | None:
        """None until a first configuration was loaded."""

    def on_change(self, callback: Callable[[Configuration], None]) -> None:
        """Have `callback` called in the event loop with each new configuration, and at once with the current."""
