"""`gatepost mailbox`: one mailbox store in a pod, which may take part in routing."""

from __future__ import annotations

import argparse

from gatepost.cli.assembly import Assembly
from gatepost.cli.router import routing
from gatepost.cli.service import Running, add_service_arguments, also, run_service
from gatepost.core.manifest.read import ManifestError
from gatepost.work.backlog import Queue


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_service_arguments(parser)
    parser.add_argument("--store", metavar="NAME", help="which store of the settings (else the setting `store`)")


def run(options: argparse.Namespace) -> int:
    chosen: str | None = options.store

    async def build(parts: Assembly) -> Running:
        name = chosen or parts.settings.store or _only(tuple(parts.settings.stores))
        if name not in parts.settings.stores:
            raise ManifestError(str(options.config), "store", f"{name!r} is none of stores")
        service = await parts.mailbox(name)
        queue = Queue(parts.topics.mailbox(name), parts.topics.group(f"mailbox.{name}"))
        trimmer = parts.trimmer(queue)
        running = Running(
            work=[service.run, trimmer.run],
            stopping=[service.stop, trimmer.stop],
            on_configuration=service.on_configuration,
            ready={"log gap": service.gap},
            queues=[queue],
        )
        if parts.mailbox_routes:
            running = also(running, "router", await routing(parts, near=True))
        return running

    return run_service(options, "mailbox", build)


def _only(names: tuple[str, ...]) -> str:
    if len(names) != 1:
        raise ManifestError("gatepost.yaml", "store", f"name one of the stores: {', '.join(names) or 'none'}")
    return names[0]
