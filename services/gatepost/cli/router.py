"""`gatepost router`: the router in a pod."""

from __future__ import annotations

import argparse

from gatepost.cli.assembly import Assembly
from gatepost.cli.service import Running, add_service_arguments, run_service
from gatepost.work.backlog import Queue

add_arguments = add_service_arguments


def run(options: argparse.Namespace) -> int:
    return run_service(options, "router", _build)


async def _build(parts: Assembly) -> Running:
    router = await parts.router()
    trimmer = parts.trimmer((parts.topics.accepted, parts.topics.group("router")))
    bodies = parts.content_trimmer(lambda: router.leads)
    return Running(
        work=[router.run, trimmer.run, bodies.run],
        stopping=[router.stop, trimmer.stop, bodies.stop],
        on_configuration=router.on_configuration,
        ready={"log gap": router.gap},
        queues=[Queue(parts.topics.accepted, parts.topics.group("router"))],
    )
