"""`gatepost edge`: the SMTP edge in a pod."""

from __future__ import annotations

import argparse

from gatepost.cli.assembly import Assembly
from gatepost.cli.service import Running, add_service_arguments, run_service
from gatepost.cli.startup import addresses_of

add_arguments = add_service_arguments


def run(options: argparse.Namespace) -> int:
    return run_service(options, "edge", _build)


async def _build(parts: Assembly) -> Running:
    edge = await parts.edge()
    return Running(
        work=[],
        stopping=[edge.drain],
        on_configuration=edge.on_configuration,
        early=edge.start,
        ready={"edge": edge.not_ready},
        close=edge.close,
        addresses=lambda: addresses_of(parts.settings, edge),
        names=True,
    )
