"""`gatepost run`: everything in one process on the embedded log, with live reload of the directory."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from gatepost import __version__
from gatepost.backends.config_dir import SETTINGS_FILE, DirectoryConfiguration
from gatepost.backends.settings_file import load_settings
from gatepost.cli.assembly import Assembly
from gatepost.cli.process import run_process, run_until, unwrapped
from gatepost.core.compile.surroundings import surroundings
from gatepost.core.manifest.settings import Role, Settings
from gatepost.edge.server import EdgeServer
from gatepost.telemetry.health import HealthServer
from gatepost.telemetry.logging import configure_logging


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, type=Path, metavar="DIR", help="gatepost.yaml and manifests")
    parser.add_argument("--state", type=Path, metavar="DIR", help="where the log and the mailboxes are (var)")


def run(options: argparse.Namespace) -> int:
    directory: Path = options.config
    settings = load_settings(directory / SETTINGS_FILE, options.state)
    configure_logging(settings.telemetry.log_format, settings.telemetry.log_level, "gatepost")
    with unwrapped():
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
            settings.admin.address, {"configuration": parts.not_configured, "edge": edge.not_ready}
        )
        await health.start()
        _report(settings, edge, health, source)
        try:
            await run_until(
                stop,
                [router.run(), relay.run(), retries.run(), *(mailbox.run() for mailbox in mailboxes)],
                [edge.drain, router.stop, relay.stop, retries.stop, *(mailbox.stop for mailbox in mailboxes)],
            )
        finally:
            await edge.close()
            await health.close()


def _report(settings: Settings, edge: EdgeServer, health: HealthServer, source: DirectoryConfiguration) -> None:
    """Say what is running, in the words of a person who wants to send a first message."""
    configuration = source.current
    domains = ", ".join(domain.domain for domain in configuration.domains) if configuration else "none"
    print(f"Gatepost {__version__} is running as {settings.hostname}")
    for listener in settings.listeners:
        host = listener.address.rpartition(":")[0]
        print(f"  {listener.role.value:<11} {host}:{edge.port(listener.name)}   (listener {listener.name})")
    admin = settings.admin.address.rpartition(":")[0]
    print(f"  {'admin':<11} http://{admin}:{health.port}/metrics  /livez  /readyz")
    print(f"  {'domains':<11} {domains}")
    for name, store in settings.stores.items():
        where = Path(settings.state) / store.maildir.path if store.maildir else store.lmtp and store.lmtp.address
        print(f"  {'store':<11} {name}: {where}")
    if configuration and configuration.domains and settings.listeners:
        _report_first_message(settings, edge, configuration.domains[0].domain)
    sys.stdout.flush()


def _report_first_message(settings: Settings, edge: EdgeServer, domain: str) -> None:
    """A line to copy: every recipient domain has a postmaster (RFC 5321 4.5.1)."""
    listener = next((one for one in settings.listeners if one.role is Role.MX), settings.listeners[0])
    host = listener.address.rpartition(":")[0]
    where = f"smtp://{host}:{edge.port(listener.name)}"
    print("\nSend a first message:")
    print("  printf 'Subject: hello\\n\\nIt works.\\n' | curl --crlf --upload-file - \\")
    print(f"    --mail-from you@example.org --mail-rcpt postmaster@{domain} {where}\n")
