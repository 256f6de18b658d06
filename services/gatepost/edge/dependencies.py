"""What the edge is given: the ports it works through, its settings and a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gatepost.core.manifest.settings import Settings
from gatepost.core.ports.content import Content
from gatepost.core.ports.directory import Directory
from gatepost.core.ports.events import Events
from gatepost.core.ports.log import Log
from gatepost.core.topics import Topics
from gatepost.telemetry.tracing import Tracer


@dataclass(frozen=True)
class EdgeDependencies:
    """Started by their owner before the edge and closed after it.

    `now_ms` gives ms since 1970. `spool_folder` takes the unlinked files of large bodies; None is the system's
    folder for temporary files.
    """

    log: Log
    content: Content
    directories: Mapping[str, Directory]
    events: Events
    tracer: Tracer
    topics: Topics
    settings: Settings
    now_ms: Callable[[], int]
    spool_folder: Path | None = None
