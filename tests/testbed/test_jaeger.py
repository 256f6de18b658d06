"""A real Jaeger: spans sent by OTLP over HTTP are found by its query API."""

import json
import secrets
import time
import urllib.request
from pathlib import Path

import pytest

from testbed.jaeger import Jaeger, tags

pytestmark = pytest.mark.servers


def send_span(jaeger: Jaeger, trace_id: str, name: str, attributes: dict[str, str]) -> None:
    now = time.time_ns()
    span = {
        "traceId": trace_id,
        "spanId": secrets.token_hex(8),
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(now - 1_000_000),
        "endTimeUnixNano": str(now),
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()],
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "edge"}}]}
    body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}
    request = urllib.request.Request(  # noqa: S310 (our own URL)
        f"{jaeger.otlp_http_url}/v1/traces",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        assert answer.status == 200


def test_spans_are_found_by_trace_and_by_tag(tmp_path: Path) -> None:
    with Jaeger(tmp_path) as jaeger:
        first, second = secrets.token_hex(16), secrets.token_hex(16)
        send_span(jaeger, first, "receive", {"mail.id": "one"})
        send_span(jaeger, first, "store", {})
        send_span(jaeger, second, "receive", {"mail.id": "two"})
        trace = jaeger.trace(first, spans=2)
        assert {span["operationName"] for span in trace["spans"]} == {"receive", "store"}
        jaeger.trace(second)
        assert jaeger.services() == ["edge"]
        [found] = jaeger.find("edge", {"mail.id": "two"})
        assert found["traceID"] == second
        assert tags(found["spans"][0])["mail.id"] == "two"
        assert len(jaeger.find("edge", operation="receive")) == 2
