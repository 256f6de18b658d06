"""`gatepost relay`: the relay and the readers of the retry topics in a pod."""

from __future__ import annotations

import argparse

from gatepost.cli.assembly import Assembly
from gatepost.cli.service import Running, add_service_arguments, run_service

add_arguments = add_service_arguments


def run(options: argparse.Namespace) -> int:
    return run_service(options, "relay", _build)


async def _build(parts: Assembly) -> Running:
    relay, retries = await parts.relay()
    return Running(
        work=[relay.run, retries.run],
        stopping=[relay.stop, retries.stop],
        on_configuration=relay.on_configuration,
    )
