"""What the router works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from gatepost.core.ports.content import Content
from gatepost.core.ports.directory import Directory
from gatepost.core.ports.events import Events
from gatepost.core.ports.log import Log
from gatepost.core.ports.resolver import Resolver
from gatepost.core.topics import Topics
from gatepost.router.near import NearStores
from gatepost.telemetry.tracing import Tracer
from gatepost.work.quarantine import Quarantine


class RouterDependencies(msgspec.Struct, frozen=True):
    """All that the router touches. `stores` maps the directory's mail hosts to names of stores.

    `near` are stores of this process that need no record in between.
    """

    log: Log
    content: Content
    quarantine: Quarantine
    directories: Mapping[str, Directory]
    resolver: Resolver
    events: Events
    tracer: Tracer
    topics: Topics
    hostname: str
    stores: Mapping[str, str]
    now_ms: Callable[[], int]
    near: NearStores | None = None
