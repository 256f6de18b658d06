"""Every metric: name, unit, meaning and labels, declared once. Names and units are OpenTelemetry's.

An increment is an addition in a dict: it must cost next to nothing on the hot path. export.py gives the values to
/metrics.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Final

Labels = tuple[str, ...]
Bounds = tuple[float, ...]

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

    def __init__(self, name: str, unit: str, meaning: str, bounds: Bounds, labels: Labels = ()) -> None:
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


# Its type is written out, since mypyc takes a tuple of just so many floats for one that was never set.
_SECONDS: Final[Bounds] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

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
SESSIONS_LIMIT = Gauge("gatepost.edge.sessions.limit", "{session}", "SMTP sessions that may be open together")
SESSIONS_ENDED = Counter(
    "gatepost.edge.sessions.ended",
    "{session}",
    "SMTP sessions that this side ended, by the check or limit that did",
    ("listener", "check"),
)
BODY_MEMORY = Gauge("gatepost.edge.body.reserved", "By", "memory reserved for bodies being received")
BODY_MEMORY_LIMIT = Gauge("gatepost.edge.body.limit", "By", "the most memory that may be reserved for bodies")
BODY_MEMORY_WAITING = Gauge("gatepost.edge.body.waiting", "{session}", "clients that wait for memory before 354")
BODIES_STREAMING = Gauge(
    "gatepost.edge.body.streaming", "{body}", "large bodies that are being received and written to the log"
)
TLS_HANDSHAKES = Counter(
    "gatepost.edge.tls.handshakes",
    "{handshake}",
    "TLS handshakes by what came of them: the version, or failed",
    ("listener", "outcome"),
)
PROXY_REFUSED = Counter(
    "gatepost.edge.proxy.refused",
    "{connection}",
    "connections closed for their PROXY header: untrusted | malformed | timeout",
    ("listener", "reason"),
)
AUTH = Counter("gatepost.edge.auth", "{attempt}", "AUTH attempts by outcome", ("listener", "verdict"))
VERDICTS = Counter(
    "gatepost.edge.verdicts",
    "{verdict}",
    "verdicts on clients, greetings and senders by check and action",
    ("listener", "check", "action"),
)
SHADOW = Counter(
    "gatepost.edge.shadow",
    "{decision}",
    "what policies in Shadow would have done, at recipient or content; agrees: whether it was done (yes | no)",
    ("listener", "stage", "action", "agrees"),
)
SHADOW_SKIPPED = Counter(
    "gatepost.edge.shadow.skipped",
    "{decision}",
    "recipients and messages that no Shadow judged, since too much is being judged: busy | slow (a scanner)",
    ("reason",),
)
AUTHENTICATION = Counter(
    "gatepost.edge.authentication",
    "{result}",
    "results of SPF, DKIM, DMARC and ARC by method; dkim is the best of a message's signatures",
    ("listener", "method", "result"),
)
SCANS = Histogram(
    "gatepost.edge.scan.duration",
    "s",
    "scans by scanner and result, from the final dot to what it said",
    _SECONDS,
    ("listener", "scanner", "result"),
)
ARCHIVES = Counter(
    "gatepost.edge.archives",
    "{message}",
    "messages with archives by what came of looking into them: looked | opaque | late | busy | failed",
    ("outcome",),
)
DNSBL = Counter(
    "gatepost.edge.dnsbl",
    "{query}",
    "answers of DNS lists: found | absent | failed (none, or an operator's error code) | resting (not asked)",
    ("zone", "outcome"),
)
OWN_LISTED = Gauge(
    "gatepost.edge.own.listed", "1", "whether one of our own addresses is on a DNS list", ("address", "zone")
)
POP_LOGINS = Counter(
    "gatepost.edge.poplogins", "{request}", "logins that mailbox servers told, by the answer's HTTP code", ("code",)
)
CALL_AHEAD = Counter(
    "gatepost.edge.callahead",
    "{question}",
    "recipients that the next host was asked for: yes | no | failed | takes-all (not asked: it takes any address)",
    ("hosts", "outcome"),
)
ALARMS = Counter("gatepost.edge.alarms", "{alarm}", "alarms on abuse by kind (docs/operations.md)", ("kind",))
BANS = Counter("gatepost.edge.bans", "{ban}", "bans that this edge made, by cause", ("cause",))
GREYLIST = Counter(
    "gatepost.edge.greylist",
    "{recipient}",
    "recipients by what greylisting said: new | early | passed | known | unsure (taken: the memory is not read)",
    ("listener", "outcome"),
)
SLOWED = Counter("gatepost.edge.slowed", "{session}", "sessions that were slowed down after errors", ("listener",))
APPENDS_IN_DOUBT = Counter(
    "gatepost.edge.append.doubtful", "{message}", "messages answered with 451 whose append may still be written"
)
DOUBTS_RESOLVED = Counter(
    "gatepost.edge.append.resolved",
    "{message}",
    "appends in doubt that came to an end: written | never | matched (by a retry) | expired | forgotten",
    ("outcome",),
)
# -- state that edges share
STATE_ENTRIES = Gauge("gatepost.state.entries", "{entry}", "entries of the shared memory by kind", ("kind",))
STATE_EVICTED = Counter("gatepost.state.evicted", "{entry}", "entries forgotten because of their number", ("kind",))
STATE_UNREADABLE = Counter("gatepost.state.unreadable", "{record}", "records that were passed over", ("kind",))
STATE_LOST = Counter("gatepost.state.lost", "{entry}", "entries that were not written before the buffer was full")
# -- log
LOG_AVAILABLE = Gauge("gatepost.log.available", "1", "whether the last contact with the log succeeded")
CONTENT_UNCONFIRMED = Gauge(
    "gatepost.content.unconfirmed", "{piece}", "pieces of bodies that the log has and has not confirmed yet"
)
LOG_UNFINISHED = Gauge("gatepost.log.unfinished", "{record}", "records taken and not finished", ("topic",))
EVENTS_DROPPED = Counter("gatepost.events.dropped", "{event}", "events lost because the buffer was full")
LINES_DROPPED = Counter(
    "gatepost.log.lines.dropped", "{line}", "lines that a log file could not take (a full disk)", ("file",)
)
# -- work topics
QUEUE_DEPTH = Gauge(
    "gatepost.queue.depth",
    "{record}",
    "unfinished records of a topic, in all partitions",
    ("topic",),
)
QUEUE_AGE = Gauge(
    "gatepost.queue.oldest.age", "s", "how long the oldest unfinished record of a topic lies there", ("topic",)
)
UNREADABLE = Counter("gatepost.work.quarantined", "{record}", "records quarantined as unusable", ("topic",))
WORK_STUCK = Counter("gatepost.work.stuck", "{batch}", "batches that a fault of ours keeps unfinished", ("topic",))
WORK_MOVED = Counter(
    "gatepost.work.moved", "{record}", "records that waited too long and went to the end of their topic", ("topic",)
)
LOG_GAPS = Gauge("gatepost.log.gap", "1", "whether a record that was to be read is gone: an alarm", ("topic",))
TOPICS_ANEW = Counter(
    "gatepost.log.topics.anew", "{topic}", "topics that were deleted and made anew while we read them", ("topic",)
)
BACKGROUND_FAULTS = Counter(
    "gatepost.background.faults", "{fault}", "faults that ended a background task; it is begun again", ("task",)
)
CONTENT_PIECES = Gauge(
    "gatepost.content.pieces", "{piece}", "pieces of bodies in content.transit after the last trim"
)
CONTENT_TRIMMED = Counter("gatepost.content.trimmed", "{piece}", "pieces of bodies removed from content.transit")
CONTENT_TRIMS = Counter(
    "gatepost.content.trims",
    "{run}",
    "looks at what content.transit still has to hold: trimmed | backlog (too long, left to the retention) | failed",
    ("outcome",),
)
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
ACCESS_TABLE_RULES = Gauge("gatepost.access.rules", "{rule}", "rules of an access table in use", ("file",))
ACCESS_TABLE_REFUSED = Counter(
    "gatepost.access.refused", "{version}", "versions of an access table that could not be used", ("file",)
)
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
