"""What the edge is given: the ports it works through, its settings and a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gatepost.core.manifest.settings import Settings
from gatepost.core.ports.access_tables import AccessTables
from gatepost.core.ports.call_ahead import CallAhead
from gatepost.core.ports.content import Content
from gatepost.core.ports.directory import Directory
from gatepost.core.ports.events import Events
from gatepost.core.ports.log import Log
from gatepost.core.ports.resolver import Resolver
from gatepost.core.ports.scanner import Scanners
from gatepost.core.ports.state import State
from gatepost.core.topics import Topics
from gatepost.edge.alarms import Watch
from gatepost.telemetry.tracing import Tracer


@dataclass(frozen=True)
class EdgeDependencies:
    """Started by their owner before the edge and closed after it.

    `now_ms` gives ms since 1970.
    """

    log: Log
    content: Content
    state: State
    directories: Mapping[str, Directory]
    resolver: Resolver
    events: Events
    tracer: Tracer
    topics: Topics
    settings: Settings
    now_ms: Callable[[], int]
    call_ahead: CallAhead | None = None
    """Asks next hosts for recipients; without it those of domains with that source get 451."""
    access: AccessTables | None = None
    """Access tables in files; without it every one of them counts as not loaded."""
    scanners: Scanners | None = None
    """Spam and virus scanners; without it every one of them counts as away."""
    abuse: Watch = field(init=False)
    """Counts what looks like abuse, by the settings."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "abuse", Watch(self.settings.telemetry.alarms))
