"""`gatepost publish`: puts a directory of manifests in force on the log, where there is no operator to do it."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from gatepost.backends.config_dir import compile_directory
from gatepost.backends.config_log import ConfigurationPublisher
from gatepost.backends.settings_file import load_settings
from gatepost.cli.assembly import Assembly
from gatepost.cli.process import unwrapped
from gatepost.core.compile.surroundings import surroundings
from gatepost.core.manifest.read import ManifestError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="MailDomain and RelayPolicy manifests")
    parser.add_argument(
        "--config", required=True, type=Path, metavar="FILE", help="gatepost.yaml of the installation"
    )


def run(options: argparse.Namespace) -> int:
    settings = load_settings(options.config, None)
    if settings.log.kafka is None:
        raise ManifestError(
            str(options.config), "log", "publish is for a log on Kafka; `gatepost run` reads a directory"
        )
    compiled = compile_directory(options.directory, surroundings(settings, any_namespace=True))
    for key, condition in compiled.rejected:
        raise ManifestError(str(options.directory), str(key), condition.message)

    async def publish() -> None:
        async with Assembly(settings, options.config.parent, "publish") as parts:
            await parts.connect_log(wait=False)
            publisher = ConfigurationPublisher(parts.log, parts.topics, await parts.log.instance_id())
            head = await publisher.load()
            epoch, generation = (head.epoch, head.generation + 1) if head else (1, 1)
            written = await publisher.publish(compiled.configuration, epoch, generation)
            print(
                f"published generation {written.generation}: {len(compiled.configuration.domains)} domains, "
                f"{len(compiled.configuration.listeners)} listeners, hash {written.hash[:12]}"
            )

    with unwrapped():
        asyncio.run(publish())
    return 0
