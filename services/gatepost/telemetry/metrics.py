"""Every metric: name, unit, meaning and labels, declared once. Names and units are OpenTelemetry's.

An increment is an addition in a dict: it must cost next to nothing on the hot path. export.py gives the values to
/metrics.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Final

Labels = tuple[str, ...]

REGISTRY: Final[dict[str, Counter | Gauge | Histogram]] = {}


class Counter:
    """A sum that only grows, by label values in the order of `labels`."""

    def __init__(self, name: str, unit: str, meaning: str, labels: Labels = ()) -> None:
        self.name, self.unit, self.meaning, self.labels = name, unit, meaning, labels
        self.values: dict[Labels, float] = {} if labels else {(): 0}
        REGISTRY[name] = self

    def add(self, *values: str, by: float = 1) -> None:
        self.values[values] = self.values.get(values, 0) + by


class Gauge:
    """A value of now: set, or read by a function when somebody asks."""

    def __init__(self, name: str, unit: str, meaning: str, labels: Labels = ()) -> None:
        self.name, self.unit, self.meaning, self.labels = name, unit, meaning, labels
        self.values: dict[Labels, float] = {}
        self.read: Callable[[], dict[Labels, float]] | None = None
        REGISTRY[name] = self

    def set(self, value: float, *values: str) -> None:
        self.values[values] = value

    def add(self, by: float, *values: str) -> None:
        self.values[values] = self.values.get(values, 0) + by

    def current(self) -> dict[Labels, float]:
        return {**self.values, **self.read()} if self.read else dict(self.values)


class Histogram:
    """A distribution over fixed bounds (seconds or bytes)."""

    def __init__(self, name: str, unit: str, meaning: str, bounds: tuple[float, ...], labels: Labels = ()) -> None:
        self.name, self.unit, self.meaning, self.labels, self.bounds = name, unit, meaning, labels, bounds
        self.counts: dict[Labels, list[int]] = {}
        self.sums: dict[Labels, float] = {}
        REGISTRY[name] = self

    def record(self, value: float, *values: str) -> None:
        counts = self.counts.get(values)
        if counts is None:
            counts = self.counts[values] = [0] * (len(self.bounds) + 1)
        counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sums[values] = self.sums.get(values, 0.0) + value


_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# -- edge
SESSIONS = Counter("gatepost.edge.sessions", "{session}", "SMTP sessions that were opened", ("listener",))
SESSIONS_OPEN = Gauge("gatepost.edge.sessions.open", "{session}", "SMTP sessions that are open", ("listener",))
REPLIES = Counter(
    "gatepost.edge.refusals",
    "{reply}",
    "refusals by the check that decided and by code",
    ("listener", "check", "code"),
)
MESSAGES_ACCEPTED = Counter("gatepost.edge.messages", "{message}", "messages answered with 250", ("listener",))
BYTES_ACCEPTED = Counter("gatepost.edge.accepted", "By", "bytes of messages answered with 250", ("listener",))
ACCEPT_SECONDS = Histogram(
    "gatepost.edge.accept.duration",
    "s",
    "from the final dot to 250: how long durable took",
    _SECONDS,
    ("listener",),
)
BODY_MEMORY = Gauge("gatepost.edge.body.reserved", "By", "memory reserved for bodies being received")
AUTH = Counter("gatepost.edge.auth", "{attempt}", "AUTH attempts by outcome", ("listener", "verdict"))
# -- log
LOG_AVAILABLE = Gauge("gatepost.log.available", "1", "whether the last contact with the log succeeded")
LOG_UNFINISHED = Gauge("gatepost.log.unfinished", "{record}", "records taken and not finished", ("topic",))
EVENTS_DROPPED = Counter("gatepost.events.dropped", "{event}", "events lost because the buffer was full")
# -- work topics
UNREADABLE = Counter("gatepost.work.quarantined", "{record}", "records quarantined as unusable", ("topic",))
WORK_STUCK = Counter("gatepost.work.stuck", "{batch}", "batches that a fault of ours keeps unfinished", ("topic",))
# -- router
ROUTED = Counter("gatepost.router.copies", "{copy}", "copies by what they became", ("destination",))
# -- mailbox, relay
DELIVERIES = Counter("gatepost.mailbox.deliveries", "{delivery}", "deliveries by outcome", ("store", "outcome"))
SENT = Counter("gatepost.relay.deliveries", "{recipient}", "recipients tried by outcome", ("outcome",))
DELIVERY_SECONDS = Histogram(
    "gatepost.delivery.duration", "s", "from acceptance at the edge to delivery", _SECONDS, ("service",)
)
RETRIES = Counter("gatepost.retry.deferrals", "{copy}", "copies put into a retry tier", ("tier",))
NOTIFICATIONS = Counter("gatepost.dsn.sent", "{message}", "delivery status notifications written", ("action",))
# -- configuration
CONFIG_LOADED = Gauge("gatepost.config.loaded", "1", "whether a configuration is in force")
CONFIG_REFUSED = Counter("gatepost.config.refused", "{configuration}", "configurations that could not be used")
# -- operator
OPERATOR_LEADER = Gauge("gatepost.operator.leader", "1", "whether this operator holds the Lease")
OPERATOR_OBJECTS = Gauge(
    "gatepost.operator.objects", "{object}", "objects by kind and whether they are accepted", ("kind", "accepted")
)
OPERATOR_EDGES = Gauge("gatepost.operator.edges", "{pod}", "edge pods that report what they run")
OPERATOR_HELD_BACK = Gauge(
    "gatepost.operator.removals.held", "{domain}", "domains whose removal waits for a person's word"
)
OPERATOR_PUBLISHED = Counter(
    "gatepost.operator.published", "{configuration}", "publications by outcome", ("outcome",)
)
OPERATOR_STATUS_WRITES = Counter(
    "gatepost.operator.status.writes", "{write}", "status writes by outcome", ("outcome",)
)
