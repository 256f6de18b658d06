"""`gatepost relay`: the relay and the readers of the retry topics in a pod."""

from __future__ import annotations

import argparse

from gatepost.cli.assembly import Assembly
from gatepost.cli.service import Running, add_service_arguments, run_service
from gatepost.work.backlog import Queue, retry_queues

add_arguments = add_service_arguments


def run(options: argparse.Namespace) -> int:
    return run_service(options, "relay", _build)


async def _build(parts: Assembly) -> Running:
    relay, retries = await parts.relay()
    topics = parts.topics
    queues = [Queue(topics.relay, topics.group("relay")), *retry_queues(topics)]
    trimmer = parts.trimmer(*queues)
    return Running(
        work=[relay.run, retries.run, trimmer.run],
        stopping=[relay.stop, retries.stop, trimmer.stop],
        on_configuration=relay.on_configuration,
        ready={"log gap": relay.gap, "log gap (retry)": retries.gap},
        queues=queues,
        names=True,
    )
