"""What happened to each session and message, for tracking. Losing an event never stops mail."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step. `kind` is one of core/event_kinds; `facts` are short texts, never a body or a secret."""

    id: str
    kind: str
    at_ms: int
    trace_id: str = ""
    parent: str = ""
    service: str = ""
    recipient: str = ""
    facts: dict[str, str] = {}


class Events(Protocol):
    def emit(self, event: Event) -> None:
        """Hand an event over without waiting; dropped and counted when the buffer is full."""
