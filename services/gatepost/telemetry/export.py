"""The metrics table as Prometheus text for /metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gatepost.telemetry.metrics import REGISTRY, Counter, Gauge, Histogram

_SUFFIX = {"s": "_seconds", "By": "_bytes"}


def prometheus_name(metric: Counter | Gauge | Histogram) -> str:
    """OpenTelemetry's name in Prometheus' form: underscores, and the unit as a suffix."""
    return metric.name.replace(".", "_") + _SUFFIX.get(metric.unit, "")


class _Table(Collector):
    def collect(self) -> Iterator[Metric]:
        for metric in list(REGISTRY.values()):
            match metric:
                case Counter():
                    counter = CounterMetricFamily(prometheus_name(metric), metric.meaning, labels=metric.labels)
                    for labels, value in list(metric.values.items()):
                        counter.add_metric(labels, value)
                    yield counter
                case Gauge():
                    gauge = GaugeMetricFamily(prometheus_name(metric), metric.meaning, labels=metric.labels)
                    for labels, value in metric.current().items():
                        gauge.add_metric(labels, value)
                    yield gauge
                case Histogram():
                    histogram = HistogramMetricFamily(prometheus_name(metric), metric.meaning, labels=metric.labels)
                    for labels, counts in list(metric.counts.items()):
                        histogram.add_metric(labels, _buckets(metric, counts), metric.sums[labels])
                    yield histogram


def _buckets(metric: Histogram, counts: list[int]) -> list[tuple[str, float]]:
    total = 0
    result: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, metric.bounds), "+Inf"), counts, strict=True):
        total += count
        result.append((bound, float(total)))
    return result


def prometheus_text() -> bytes:
    """Return all metrics in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Table())
    return generate_latest(registry)
