"""Tasks in the background that last as long as what they serve: a fault in one is seen, and it begins again.

A task that ends with an exception ends silently until somebody asks for its result, and nobody asks for that of a
task that should never end: the process goes on without it. So each of them runs here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from gatepost.telemetry import metrics

AGAIN_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


def lasting(name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """Run `work` in a task of its own, again AGAIN_SECONDS after each fault, until it returns or is cancelled."""
    return asyncio.get_running_loop().create_task(_last(name, work), name=name)


async def _last(name: str, work: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.current_task()
    assert task is not None
    while True:
        try:
            return await work()
        except asyncio.CancelledError as error:
            # Libraries leak the cancellation of tasks of their own: only our own canceller ends this one.
            if task.cancelling():
                raise
            fault: BaseException = error
        except Exception as error:
            fault = error
        metrics.BACKGROUND_FAULTS.add(name)
        _log.error("background.fault", task=name, exc_info=fault)
        await asyncio.sleep(AGAIN_SECONDS)
