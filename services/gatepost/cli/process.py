"""One process of ours in the foreground: uvloop, signals, tasks that end together, a clean way out."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, Final

import structlog
import uvloop

from gatepost.cli.allocator import keep_memory
from gatepost.cli.systemd import tell_service_manager

STOP_LIMIT_S: Final = 40.0  # Kubernetes' grace period, by the chart, is a little longer

COLLECT_AFTER: Final = 20_000  # new objects: at most some 10 MB of garbage, and a pause of some ms
COLLECT_OLDER_AFTER: Final = 20  # collections of the younger ones

EXIT_INTERRUPTED: Final = 130  # as a shell reports SIGINT

_log = structlog.get_logger()


def run_process(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> int:
    """Run `main` with an event that SIGTERM or SIGINT sets; a second signal ends at once."""

    async def supervised() -> None:
        _tame_collector()
        keep_memory()
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()

        def on_signal() -> None:
            if stop.is_set() and task is not None:
                task.cancel()
            tell_service_manager("STOPPING=1", "STATUS=ends what is under way")
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        await main(stop)

    try:
        uvloop.run(supervised())
    except asyncio.CancelledError:
        return EXIT_INTERRUPTED
    return 0


def _tame_collector() -> None:
    """Collect garbage less often, and never look again at what was loaded at start.

    A batch of records is some ten thousand objects that live until it is durable; Python's default would look at
    them all, and by and by at everything else, several times meanwhile. Nearly all of ours ends without a cycle.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, COLLECT_OLDER_AFTER, COLLECT_OLDER_AFTER)


async def run_until(
    stop: asyncio.Event,
    work: Sequence[Coroutine[Any, Any, None]],
    stopping: Sequence[Callable[[], None] | Callable[[], Awaitable[None]]],
) -> None:
    """Run all `work`; when `stop` is set call `stopping` in order and wait for the work to end by itself.

    A piece of work that fails ends all the others and is raised.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    waiter = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([*tasks, waiter], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in done if task is not waiter and not task.cancelled() and task.exception()]
        if not failed:
            await _end(tasks, stopping)
        for task in [*failed, *(task for task in tasks if task.done())]:
            if not task.cancelled():
                task.result()
    finally:
        for task in [*tasks, waiter]:
            task.cancel()
        await asyncio.gather(*tasks, waiter, return_exceptions=True)


async def _end(
    tasks: Sequence[asyncio.Task[None]],
    stopping: Sequence[Callable[[], None] | Callable[[], Awaitable[None]]],
) -> None:
    try:
        async with asyncio.timeout(STOP_LIMIT_S):
            for step in stopping:
                result = step()
                if result is not None:
                    await result
            if tasks:
                await asyncio.wait(tasks)
    except TimeoutError:
        _log.warning("stop.late", reason=f"work was still going on after {STOP_LIMIT_S:.0f} s; it is done again")


def first_error(group: BaseException) -> BaseException:
    """The innermost first exception of nested groups: what a person needs to read."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


@contextlib.contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the first exception of a group by itself."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise first_error(group) from None
