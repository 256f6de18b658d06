"""`gatepost router`: the router in a pod."""

from __future__ import annotations

import argparse

from gatepost.cli.assembly import Assembly
from gatepost.cli.service import Running, add_service_arguments, run_service
from gatepost.work.backlog import Queue

add_arguments = add_service_arguments


def run(options: argparse.Namespace) -> int:
    return run_service(options, "router", routing)


async def routing(parts: Assembly, *, near: bool = False) -> Running:
    """The router as part of a process; with `near` it puts mail into the stores of that process itself."""
    router = await parts.router(near=near)
    queue = Queue(parts.topics.accepted, parts.topics.group("router"))
    trimmer = parts.trimmer(queue)
    bodies = parts.content_trimmer(lambda: router.leads)
    return Running(
        work=[router.run, trimmer.run, bodies.run],
        stopping=[router.stop, trimmer.stop, bodies.stop],
        on_configuration=router.on_configuration,
        ready={"log gap": router.gap},
        queues=[queue],
    )
