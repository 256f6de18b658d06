"""The metrics table as Prometheus text for /metrics and as OpenTelemetry instruments for OTLP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
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


def observe_with(reader: MetricReader) -> MeterProvider:
    """Register every counter and gauge with OpenTelemetry, to be read through `reader`."""
    provider = MeterProvider(metric_readers=[reader])
    meter = provider.get_meter("gatepost")
    for metric in REGISTRY.values():
        match metric:
            case Counter():
                meter.create_observable_counter(metric.name, [_observer(metric)], metric.unit, metric.meaning)
            case Gauge():
                meter.create_observable_gauge(metric.name, [_observer(metric)], metric.unit, metric.meaning)
            case Histogram():
                continue  # an SDK histogram has no observable form; /metrics has it
    return provider


class _observer:  # noqa: N801  (used as a function)
    def __init__(self, metric: Counter | Gauge) -> None:
        self.metric = metric

    def __call__(self, options: CallbackOptions) -> Iterable[Observation]:
        values = self.metric.values if isinstance(self.metric, Counter) else self.metric.current()
        for labels, value in list(values.items()):
            yield Observation(value, dict(zip(self.metric.labels, labels, strict=True)))
