"""The HTTP server of a pod: /livez, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from aiohttp import web

from gatepost.core.endpoints import parse_endpoint
from gatepost.telemetry.export import prometheus_text

Check = Callable[[], str | None]
"""Returns None when all is well, else what is wrong, for people."""

Route = web.RouteDef
"""What else the admin server answers, for a part of the process that has such a thing."""


class HealthServer:
    """Serves health and metrics on one address. Readiness never depends on Kafka or LDAP (docs/guarantees.md)."""

    def __init__(
        self,
        address: str,
        ready: Mapping[str, Check],
        live: Mapping[str, Check] | None = None,
        routes: Sequence[Route] = (),
    ) -> None:
        self._host, self._port = parse_endpoint(address)
        self._ready, self._live = ready, live or {}
        self._routes = routes
        self._runner: web.AppRunner | None = None
        self.port = self._port

    async def start(self) -> None:
        """Listen. Raises OSError when the address is taken."""
        app = web.Application()
        app.router.add_get("/livez", self._serve_live)
        app.router.add_get("/readyz", self._serve_ready)
        app.router.add_get("/metrics", self._serve_metrics)
        app.add_routes(self._routes)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        addresses = self._runner.addresses
        self.port = addresses[0][1] if addresses else self._port

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve_live(self, request: web.Request) -> web.Response:
        return _answer(self._live)

    async def _serve_ready(self, request: web.Request) -> web.Response:
        return _answer(self._ready)

    async def _serve_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=prometheus_text(), content_type="text/plain", charset="utf-8")


def _answer(checks: Mapping[str, Check]) -> web.Response:
    problems = {name: problem for name, check in checks.items() if (problem := check()) is not None}
    if not problems:
        return web.Response(text="ok\n")
    return web.Response(status=503, text="".join(f"{name}: {text}\n" for name, text in problems.items()))
