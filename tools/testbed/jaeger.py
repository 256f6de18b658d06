"""Jaeger all-in-one with spans in memory: OTLP in, its query API to read traces back."""

import contextlib
import http.client
import json
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed import ports
from testbed.network import HERE, Place
from testbed.process import Server, ServerError
from testbed.provision import jaeger as provision
from testbed.running import Running

REQUEST_SECONDS = 10.0
POLL_SECONDS = 0.05

_LISTENERS = (
    "query.http-server.host-port",
    "collector.otlp.http.host-port",
    "collector.otlp.grpc.host-port",
    "query.grpc-server.host-port",
    "collector.grpc-server.host-port",
    "collector.http-server.host-port",
    "admin.http.host-port",
)


class Jaeger(Running):
    """One Jaeger in `folder`, a context manager.

    Attributes: `otlp_http_port`, `otlp_grpc_port` and `query_port` at `place`, and `otlp_http_url`
    (`http://ADDRESS:PORT`, to which exporters add /v1/traces).
    """

    def __init__(self, folder: Path, place: Place = HERE) -> None:
        program = provision.install()
        folder.mkdir(parents=True, exist_ok=True)
        self._place = place
        self._ports = [ports.reserve() for _ in _LISTENERS]
        self.query_port, self.otlp_http_port, self.otlp_grpc_port = self._ports[:3]
        self.otlp_http_url = f"http://{place.address}:{self.otlp_http_port}"
        flags = [f"--{name}={place.address}:{port}" for name, port in zip(_LISTENERS, self._ports, strict=True)]
        flags.append("--log-level=warn")
        self.server = Server(
            "jaeger",
            [program, *flags],
            folder,
            ports=self._ports[:3],
            place=place,
            env={"SPAN_STORAGE_TYPE": "memory"},
        )

    def start(self) -> None:
        """Starts it; returns when its collectors and its query API answer."""
        self.server.start()

    def stop(self) -> None:
        """Ends it at once (there is nothing to save: its spans are in memory)."""
        self.server.kill9()
        for port in self._ports:
            ports.release(port)

    def trace(self, trace_id: str, seconds: float = 10.0, spans: int = 1) -> dict[str, Any]:
        """The trace with this id (32 hex digits), once it has at least `spans` spans.

        Returns Jaeger's JSON of it: `spans` (operationName, spanID, references, tags, logs, processID) and
        `processes`. Raises ServerError when it doesn't come in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            found: list[dict[str, Any]] = self._get(f"/api/traces/{trace_id}")
            count = len(found[0]["spans"]) if found else 0
            if count >= spans:
                return found[0]
            if time.monotonic() > deadline:
                raise ServerError(f"trace {trace_id} has {count} spans after {seconds} s, not {spans}")
            time.sleep(POLL_SECONDS)

    def find(
        self, service: str, tags: Mapping[str, str] | None = None, operation: str | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """The traces with a span of `service` (and of that operation) that has all `tags`, in the same JSON."""
        query = {"service": service, "limit": str(limit), "lookback": "1h", "tags": json.dumps(dict(tags or {}))}
        if operation is not None:
            query["operation"] = operation
        return self._get("/api/traces?" + urllib.parse.urlencode(query))

    def services(self) -> list[str]:
        """The names of the services that have sent spans."""
        return [str(name) for name in self._get("/api/services")]

    def _get(self, path: str) -> list[Any]:
        connection = http.client.HTTPConnection(self._place.address, self.query_port)
        connection.sock = self._place.connect(self.query_port, REQUEST_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        if answer.status == 404:
            return []
        if answer.status != 200:
            raise ServerError(f"Jaeger answered {path} with {answer.status}: {body[:500]!r}")
        return list(json.loads(body)["data"] or [])


def tags(span: Mapping[str, Any]) -> dict[str, Any]:
    """A span's (or a log entry's) attributes as a dict."""
    return {tag["key"]: tag["value"] for tag in span.get("tags", span.get("fields", []))}
