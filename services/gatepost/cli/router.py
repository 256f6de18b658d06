"""`gatepost router`: the router in a pod."""

from __future__ import annotations

import argparse

from gatepost.cli.assembly import Assembly
from gatepost.cli.service import Running, add_service_arguments, run_service

add_arguments = add_service_arguments


def run(options: argparse.Namespace) -> int:
    return run_service(options, "router", _build)


async def _build(parts: Assembly) -> Running:
    router = await parts.router()
    trimmer = parts.trimmer((parts.topics.accepted, parts.topics.group("router")))
    return Running(
        work=[router.run, trimmer.run],
        stopping=[router.stop, trimmer.stop],
        on_configuration=router.on_configuration,
    )
