"""What became of recipients, told in one way: metrics, an event, a log line, a span for each failure."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from opentelemetry.trace import SpanKind

from gatepost.core import event_kinds
from gatepost.core.aftermath import Aftermath, Told
from gatepost.core.envelope import Envelope
from gatepost.core.ports.events import Event, Events
from gatepost.core.ports.store import StoreOutcome
from gatepost.core.ports.transport import RemoteReply
from gatepost.telemetry import metrics
from gatepost.telemetry.logging import tell
from gatepost.telemetry.tracing import TraceContext, Tracer, parse_traceparent

_STORED = RemoteReply(250, "2.0.0", "stored")

_log = structlog.get_logger()


class Teller:
    """Tells for one service (`mailbox`, `relay`)."""

    def __init__(self, service: str, events: Events, tracer: Tracer, now_ms: Callable[[], int]) -> None:
        self._service, self._events, self._tracer, self._now_ms = service, events, tracer, now_ms

    def done(self, kind: str, envelope: Envelope, told: Told, trace: TraceContext | None, where: str) -> None:
        """A recipient has its mail: stored or sent."""
        seconds = (self._now_ms() - envelope.received_ms) / 1000
        metrics.DELIVERY_SECONDS.record(seconds, self._service)
        tell(
            _log,
            kind,
            {
                "id": told.recipient.id or envelope.id,
                "parent": envelope.parent,
                "trace": trace.trace_id if trace else "",
                "recipient": told.recipient.address,
                "where": where,
                "seconds": round(seconds, 3),
            },
        )
        self._emit(kind, envelope, told, trace, {"where": where, "reply": told.reply.text})

    def stored(self, envelope: Envelope, traceparent: bytes | None, store: str) -> None:
        """A copy is in its mailbox."""
        trace = parse_traceparent(traceparent)
        if trace is not None and trace.sampled:
            span = self._tracer.start("gatepost.mailbox store", trace, kind=SpanKind.CONSUMER)
            span.set("messaging.message.id", envelope.id)
            span.set("gatepost.store", store)
            span.end()
        metrics.DELIVERIES.add(store, StoreOutcome.STORED.value)
        self.done(event_kinds.STORED, envelope, Told(envelope.recipients[0], _STORED), trace, store)

    def troubles(self, envelope: Envelope, after: Aftermath, trace: TraceContext | None) -> None:
        """Recipients that were deferred or that failed."""
        for kind, tolds in ((event_kinds.DEFERRED, after.deferred), (event_kinds.FAILED, after.failed)):
            for told in tolds:
                self._trouble(kind, envelope, told, trace)
        if after.notified:
            metrics.NOTIFICATIONS.add("failed")
        if after.success:
            metrics.NOTIFICATIONS.add(after.success)

    def _trouble(self, kind: str, envelope: Envelope, told: Told, trace: TraceContext | None) -> None:
        reply = told.reply
        reason = " ".join(part for part in (str(reply.code), reply.enhanced, reply.text) if part)
        _log.info(
            f"{self._service}.{kind}",
            id=envelope.id,
            parent=envelope.parent,
            trace=trace.trace_id if trace else "",
            recipient=told.recipient.address,
            remote=reply.remote,
            reason=reason,
            tier=told.tier,
        )
        if told.tier:
            metrics.RETRIES.add(told.tier)
        self._tracer.failure(f"gatepost.{self._service} {kind}", trace, reason)
        facts = {"reason": reason, "remote": reply.remote, "tier": told.tier}
        self._emit(kind, envelope, told, trace, {name: value for name, value in facts.items() if value})

    def _emit(
        self, kind: str, envelope: Envelope, told: Told, trace: TraceContext | None, facts: dict[str, str]
    ) -> None:
        self._events.emit(
            Event(
                told.recipient.id or envelope.id,
                kind,
                self._now_ms(),
                trace.trace_id if trace else "",
                parent=envelope.parent,
                service=self._service,
                recipient=told.recipient.address,
                facts=facts,
            )
        )
