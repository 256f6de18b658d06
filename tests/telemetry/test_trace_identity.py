"""W3C trace context: what is read, what is passed on, and that only sampled spans take part."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gatepost.telemetry.tracing import Tracer, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def header(version: str = "00", trace: str = TRACE, span: str = SPAN, flags: str = "01") -> bytes:
    return f"{version}-{trace}-{span}-{flags}".encode()


@pytest.mark.parametrize(("flags", "sampled"), [("01", True), ("00", False), ("03", True), ("02", False)])
def test_a_header_is_read_and_written_back(flags: str, sampled: bool) -> None:
    context = parse_traceparent(header(flags=flags))
    assert context is not None
    assert (context.trace_id, context.span_id, context.sampled) == (TRACE, SPAN, sampled)
    assert context.traceparent == header(flags=flags)


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        header(version="01"),
        header(trace=TRACE.upper()),
        header(trace="0" * 32),
        header(span="0" * 16),
        header(flags="0g"),
        header() + b"\n",
        header()[:-1],
        header(span="é" * 8),
    ],
)
def test_a_malformed_header_is_none(data: bytes | None) -> None:
    assert parse_traceparent(data) is None


def test_what_is_not_sampled_passes_its_parent_on() -> None:
    parent = parse_traceparent(header(flags="00"))
    span = Tracer("x", exporter=InMemorySpanExporter()).start("n", parent)
    assert not span.recording
    assert span.context.traceparent == header(flags="00")


def test_without_an_exporter_a_sampled_parent_still_reaches_the_next_process() -> None:
    span = Tracer("x").start("n", parse_traceparent(header()))
    assert span.context.traceparent == header()


def test_a_new_trace_has_a_valid_identity() -> None:
    first, second = (Tracer("x").start("n").context for _ in range(2))
    assert parse_traceparent(first.traceparent) is not None
    assert (first.trace_id, first.span_id) != (second.trace_id, second.span_id)
    assert not first.sampled


def test_a_sampled_span_is_a_child_of_its_parent() -> None:
    exporter = InMemorySpanExporter()
    tracer = Tracer("x", exporter=exporter)
    with tracer.start("n", parse_traceparent(header())) as span:
        assert span.recording
        assert span.context.trace_id == TRACE
        assert span.context.span_id != SPAN
    tracer.close()
    (made,) = exporter.get_finished_spans()
    assert made.parent is not None
    assert f"{made.parent.span_id:016x}" == SPAN
