"""docs/metrics.md: every metric with its labels and meaning, from the table in telemetry/metrics.py."""

from __future__ import annotations

from gatepost.telemetry.export import prometheus_name
from gatepost.telemetry.metrics import REGISTRY, Counter

INTRODUCTION = """\
# Metrics

At `/metrics` in the Prometheus format under the names below; counters end in `_total`. The dotted names are
OpenTelemetry's; an OpenTelemetry collector reads them from `/metrics`, nothing is pushed.

This page is written from the table in the code (`make docs`).

| at /metrics | OpenTelemetry | kind | labels | meaning |
|---|---|---|---|---|
"""


def metrics_page() -> str:
    lines = []
    for metric in sorted(REGISTRY.values(), key=lambda one: one.name):
        name = prometheus_name(metric) + ("_total" if isinstance(metric, Counter) else "")
        kind = type(metric).__name__.lower()
        lines.append(
            f"| `{name}` | `{metric.name}` | {kind} | {', '.join(metric.labels) or '–'} | {metric.meaning} |"
        )
    return INTRODUCTION + "\n".join(lines) + "\n"
