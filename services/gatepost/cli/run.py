"""`gatepost run`: everything in one process on the embedded log, with live reload of the directory."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from gatepost.backends.config_dir import SETTINGS_FILE, DirectoryConfiguration
from gatepost.backends.settings_file import load_settings
from gatepost.cli import startup
from gatepost.cli.assembly import Assembly, now_ms
from gatepost.cli.logs import logs
from gatepost.cli.process import run_process, run_until, unwrapped
from gatepost.cli.systemd import tell_service_manager
from gatepost.core.compile.surroundings import surroundings
from gatepost.core.manifest.settings import Settings
from gatepost.edge.server import EdgeServer
from gatepost.telemetry.health import HealthServer
from gatepost.work.backlog import BacklogGauge, all_queues


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, type=Path, metavar="DIR", help="gatepost.yaml and manifests")
    parser.add_argument("--state", type=Path, metavar="DIR", help="where the log and the mailboxes are (var)")


def run(options: argparse.Namespace) -> int:
    directory: Path = options.config
    settings = load_settings(directory / SETTINGS_FILE, options.state)
    with logs(settings, "gatepost"), unwrapped():
        return run_process(lambda stop: _main(directory, settings, stop))


async def _main(directory: Path, settings: Settings, stop: asyncio.Event) -> None:
    async with Assembly(settings, directory, "standalone") as parts:
        await parts.connect_log(wait=False)
        await parts.start_directories()
        mailboxes = [await parts.mailbox(name) for name in settings.stores]
        router = await parts.router(near=True)
        relay, retries = await parts.relay()
        edge = await parts.edge()
        source = DirectoryConfiguration(directory, surroundings(settings, any_namespace=True))
        await parts.configure(
            source,
            [
                edge.on_configuration,
                router.on_configuration,
                relay.on_configuration,
                *(mailbox.on_configuration for mailbox in mailboxes),
            ],
        )
        await edge.start()
        health = HealthServer(
            settings.admin.address,
            {"configuration": parts.not_configured, "edge": edge.not_ready},
            routes=parts.admin_routes,
        )
        await health.start()
        gauge = BacklogGauge(parts.log, all_queues(parts.topics, settings.stores), now_ms)
        await _tell(parts, edge, health)
        bodies = parts.content_trimmer(lambda: True)
        names = startup.own_names(parts, stop)
        try:
            await run_until(
                stop,
                [
                    router.run(),
                    relay.run(),
                    retries.run(),
                    *(mailbox.run() for mailbox in mailboxes),
                    gauge.run(),
                    bodies.run(),
                    names,
                ],
                [
                    edge.drain,
                    router.stop,
                    relay.stop,
                    retries.stop,
                    *(mailbox.stop for mailbox in mailboxes),
                    gauge.stop,
                    bodies.stop,
                ],
            )
        finally:
            await edge.close()
            await health.close()


async def _tell(parts: Assembly, edge: EdgeServer, health: HealthServer) -> None:
    """Say what is running: to the log, to who sits at the terminal, to the service manager."""
    settings = parts.settings
    addresses = startup.addresses_of(settings, edge)
    waiting = await startup.backlogs(parts, all_queues(parts.topics, settings.stores))
    startup.started(parts, addresses, waiting)
    admin = f"{settings.admin.address.rpartition(':')[0]}:{health.port}"
    startup.show(parts, addresses, admin, waiting, now_ms())
    tell_service_manager("READY=1", f"STATUS=running as {settings.hostname} on {', '.join(addresses.values())}")
