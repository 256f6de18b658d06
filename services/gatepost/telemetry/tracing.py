"""One trace per message over all processes: spans, sampled at the head, joined by W3C traceparent.

The hot path asks `sampled()` first: a message that is not sampled costs one random number. A refusal or a
failure is recorded as a span even when the message's trace is not sampled (see Tracer.failure).
Names follow OpenTelemetry's messaging semantic conventions where there are any.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

EXPORT_TIMEOUT_S = 5.0
# W3C Trace Context 2.2.2: lower-case hex; ids of zeros only are invalid.
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_bits = random.getrandbits
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class TraceContext:
    """The identity of a span on the way between processes (W3C Trace Context 2.2, version 00)."""

    __slots__ = ("_text", "sampled", "span_id", "trace_id")

    def __init__(self, trace_id: str, span_id: str, sampled: bool, text: bytes = b"") -> None:
        """`text` is the header where it is known already."""
        self.trace_id, self.span_id, self.sampled, self._text = trace_id, span_id, sampled, text

    @property
    def traceparent(self) -> bytes:
        if not self._text:
            self._text = f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}".encode()
        return self._text


def parse_traceparent(data: bytes | None) -> TraceContext | None:
    """Read a traceparent header; None when there is none or it is malformed (it is then ignored)."""
    found = None if data is None else _TRACEPARENT.fullmatch(data)
    if data is None or found is None:
        return None
    trace_id, span_id = found[1].decode("ascii"), found[2].decode("ascii")
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceContext(trace_id, span_id, bool(int(found[3], 16) & 1), data)


class Span:
    """A span of ours: a real one when sampled, else only its identity. Use as a context manager or end()."""

    __slots__ = ("_span", "context")

    def __init__(self, context: TraceContext, span: trace.Span | None) -> None:
        self.context = context
        self._span = span

    @property
    def recording(self) -> bool:
        return self._span is not None

    def set(self, name: str, value: str | int | float | bool) -> None:
        if self._span is not None:
            self._span.set_attribute(name, value)

    def event(self, name: str, **attributes: str | int | float | bool) -> None:
        if self._span is not None:
            self._span.add_event(name, attributes)

    def fail(self, reason: str) -> None:
        if self._span is not None:
            self._span.set_status(trace.StatusCode.ERROR, reason)

    def end(self) -> None:
        if self._span is not None:
            self._span.end()

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        if kind is not None and self._span is not None:
            self._span.set_status(trace.StatusCode.ERROR, kind.__name__)
        self.end()


class Tracer:
    """Makes spans for one service. Without an endpoint nothing is exported, but identities still travel."""

    def __init__(
        self,
        service: str,
        *,
        endpoint: str = "",
        sampling: float = 0.01,
        exporter: SpanExporter | None = None,
    ) -> None:
        self._sampling = sampling
        self._provider: TracerProvider | None = None
        if endpoint and exporter is None:
            # Loaded only when traces are exported: it brings an HTTP client and protobuf with it.
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S)
        if exporter is not None:
            resource = Resource.create({"service.name": f"gatepost-{service}", "service.namespace": "gatepost"})
            self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource)
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("gatepost") if self._provider else None

    def sampled(self) -> bool:
        """Decide at the head of a message whether its trace is kept."""
        return self._tracer is not None and random.random() < self._sampling

    def start(
        self,
        name: str,
        parent: TraceContext | None = None,
        *,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        sampled: bool | None = None,
        start_ns: int | None = None,
    ) -> Span:
        """Begin a span: below `parent`, whose sampling it takes over, or as the head of a new trace.

        A span that is not recorded takes no part in the trace: below a parent it passes the parent's identity on.
        """
        if sampled is None:
            sampled = parent.sampled if parent else self.sampled()
        if not sampled or self._tracer is None:
            # Random, as W3C Trace Context asks for, but nothing hangs on nobody guessing it.
            return Span(parent or TraceContext(f"{_bits(128):032x}", f"{_bits(64):016x}", sampled), None)
        context = None
        if parent is not None:
            remote = trace.SpanContext(
                int(parent.trace_id, 16),
                int(parent.span_id, 16),
                True,
                trace.TraceFlags(trace.TraceFlags.SAMPLED),
            )
            context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
        span = self._tracer.start_span(name, context=context, kind=kind, attributes=attributes, start_time=start_ns)
        identity = span.get_span_context()
        return Span(TraceContext(f"{identity.trace_id:032x}", f"{identity.span_id:016x}", True), span)

    def failure(
        self, name: str, parent: TraceContext | None, reason: str, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Record a refusal or failure as a span of its own, sampled or not."""
        if self._tracer is None:
            return
        span = self.start(name, parent, attributes=attributes, sampled=True)
        span.fail(reason)
        span.end()

    def close(self) -> None:
        """Send what is left, with a limit."""
        if self._provider is not None:
            self._provider.force_flush(int(EXPORT_TIMEOUT_S * 1000))
            self._provider.shutdown()
