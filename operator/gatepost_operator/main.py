"""`gatepost-operator --config FILE`: the process. It puts the parts together, and ends when one of them fails.

Exit codes: 0 stopped, 2 the call or the settings are wrong, 3 something outside is not available.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gatepost import __version__
from gatepost.backends.log_kafka import KafkaLog
from gatepost.backends.settings_file import load_settings
from gatepost.core.manifest.read import ManifestError
from gatepost.core.manifest.settings import Settings
from gatepost.core.ports.log import LogError, LogMisconfigured
from gatepost.telemetry import metrics
from gatepost.telemetry.logging import configure_logging
from gatepost_operator.assembly import Operator
from gatepost_operator.cluster import ClusterError
from gatepost_operator.cluster_lightkube import LightkubeCluster

SERVICE: Final = "operator"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the operator until SIGTERM and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="gatepost-operator", description="Compiles MailDomains and RelayPolicies."
    )
    parser.add_argument("--version", action="version", version=f"gatepost-operator {__version__}")
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="gatepost.yaml")
    parser.add_argument("--lease", metavar="NAME", help="the Lease of this release's operator; its name by default")
    options = parser.parse_args(arguments)
    # kopf names its process by the user, whom a container's arbitrary uid does not have.
    os.environ["LOGNAME"] = os.environ.get("LOGNAME") or "gatepost"
    try:
        settings = load_settings(options.config, None)
        if settings.log.kafka is None:
            raise ManifestError(str(options.config), "log", "the operator needs a log on Kafka")
        configure_logging(settings.telemetry.log_format, settings.telemetry.log_level, SERVICE)
        asyncio.run(_serve(settings, options.lease or lease_name(settings)))
    except (ManifestError, LogMisconfigured) as error:
        return _fail(str(error), 2)
    except (LogError, ClusterError, OSError, RuntimeError) as error:
        return _fail(str(error), 3)
    return 0


def lease_name(settings: Settings) -> str:
    """The release is the last part of the topics' prefix (`<namespace>.<release>.`)."""
    release = settings.log.topic_prefix.rstrip(".").rpartition(".")[2] or "gatepost"
    return f"{release}-operator"


def _fail(message: str, code: int) -> int:
    print(f"gatepost-operator: {message}", file=sys.stderr)
    return code


async def _serve(settings: Settings, lease: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    assert settings.log.kafka is not None
    log = KafkaLog(settings.log.kafka, client_id=f"gatepost-operator-{os.getpid()}")
    metrics.LOG_AVAILABLE.read = lambda: {(): float(log.available)}
    cluster = LightkubeCluster()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(cluster.close)
        stack.push_async_callback(log.close)
        operator = Operator(settings, lease, cluster, log, identity())
        try:
            await operator.run(stop)
        except* (LogError, ClusterError, OSError, RuntimeError) as group:
            raise _first(group) from None


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def identity() -> str:
    """Another one for each process: a container that is started again is not the holder that it was."""
    return f"{os.environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4()}"


if __name__ == "__main__":
    sys.exit(main())
