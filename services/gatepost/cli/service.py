"""What the commands for pods share: settings from a file, policy from the config topic, health, a clean stop."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gatepost.backends.config_log import LogConfiguration
from gatepost.backends.settings_file import load_settings
from gatepost.cli import startup
from gatepost.cli.assembly import Assembly, now_ms
from gatepost.cli.logs import logs
from gatepost.cli.process import run_process, run_until, unwrapped
from gatepost.cli.systemd import tell_service_manager
from gatepost.core.manifest.settings import Settings
from gatepost.core.tables import Tables
from gatepost.telemetry.health import Check, HealthServer
from gatepost.work.backlog import BacklogGauge, Queue


class Running(msgspec.Struct):
    """A service as its command has put it together.

    `work` runs once the log's topics are known to be right; `early` begins at once (an edge must be able to
    say 421 while the log is away). `stopping` is called in order. `queues` are those that it works on, `addresses`
    what it listens on; `names` is whether others know us by our name in DNS (we greet, or are greeted).
    """

    work: Sequence[Callable[[], Coroutine[Any, Any, None]]]
    stopping: Sequence[Callable[[], None] | Callable[[], Awaitable[None]]]
    on_configuration: Callable[[Tables], None]
    early: Callable[[], Awaitable[None]] | None = None
    ready: dict[str, Check] = {}
    close: Callable[[], Awaitable[None]] | None = None
    queues: Sequence[Queue] = ()
    addresses: Callable[[], dict[str, str]] = dict
    names: bool = False


Build = Callable[[Assembly], Awaitable[Running]]


def also(running: Running, what: str, more: Running) -> Running:
    """A service with another one in its process, of which neither listens; the other one is called `what`."""

    def configure(tables: Tables) -> None:
        running.on_configuration(tables)
        more.on_configuration(tables)

    return Running(
        work=[*running.work, *more.work],
        stopping=[*more.stopping, *running.stopping],
        on_configuration=configure,
        ready={**running.ready, **{f"{name} ({what})": check for name, check in more.ready.items()}},
        queues=[*running.queues, *more.queues],
    )


def add_service_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="gatepost.yaml")
    parser.add_argument("--state", type=Path, metavar="DIR", help="where the process keeps files of its own")


def run_service(options: argparse.Namespace, service: str, build: Build) -> int:
    """Run one service until SIGTERM."""
    file: Path = options.config
    settings = load_settings(file, options.state)
    with logs(settings, service), unwrapped():
        return run_process(lambda stop: _main(file, settings, service, build, stop))


def pod_uid() -> str:
    """The pod's UID from the downward API; outside of Kubernetes host and process id."""
    return os.environ.get("POD_UID") or f"{socket.gethostname()}-{os.getpid()}"


async def _main(file: Path, settings: Settings, service: str, build: Build, stop: asyncio.Event) -> None:
    async with Assembly(settings, file.parent, service) as parts:
        await parts.start_directories()
        running = await build(parts)
        ready = {"configuration": parts.not_configured, **running.ready}
        health = HealthServer(settings.admin.address, ready, routes=parts.admin_routes)
        await health.start()
        try:
            if running.early is not None:
                await running.early()
            tell_service_manager("READY=1", f"STATUS={service} of {settings.hostname}; waiting for the log")
            await _work(parts, running, service, stop)
        finally:
            if running.close is not None:
                await running.close()
            await health.close()


async def _work(parts: Assembly, running: Running, service: str, stop: asyncio.Event) -> None:
    source = LogConfiguration(parts.log, parts.topics, parts.state, pod_uid(), service, now_ms)

    async def after_log(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await parts.log_ready.wait()
        await work()

    async def connect() -> None:
        await parts.connect_log(wait=True)
        startup.started(parts, running.addresses(), await startup.backlogs(parts, running.queues))
        tell_service_manager(f"STATUS={service} of {parts.settings.hostname}; at work")
        await stop.wait()

    await parts.configure(source, [running.on_configuration])
    gauge = BacklogGauge(parts.log, running.queues, now_ms)
    works = [connect(), after_log(gauge.run), *(after_log(work) for work in running.work)]
    if running.names:
        works.append(startup.own_names(parts, stop))
    await run_until(stop, works, [*running.stopping, gauge.stop, parts.log_ready.set])
