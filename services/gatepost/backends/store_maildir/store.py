"""The asynchronous half of a Maildir store: deliveries that arrive while a batch is written form the next one."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import structlog

from gatepost.backends.store_maildir.engine import Engine, Job
from gatepost.core.manifest.quantities import seconds
from gatepost.core.manifest.settings import MaildirSettings
from gatepost.core.ports.store import Delivery, StoreOutcome, StoreResult

# One batch: enough to share the syncs, small enough that the first of it does not wait for long.
MAX_BATCH: Final = 256
MAX_BATCH_BYTES: Final = 32 * 1024 * 1024
# Larger messages are written piece by piece, so that they are never whole in memory for our sake.
WHOLE_LIMIT: Final = 256 * 1024
PIECE: Final = 1024 * 1024

_STOPPING: Final = StoreResult(StoreOutcome.DEFERRED, 421, "4.3.2", "The mailbox store is not running")
_FAULT: Final = StoreResult(StoreOutcome.DEFERRED, 451, "4.3.0", "The mailbox cannot be written now")

_log = structlog.get_logger("gatepost.store")


class MaildirStore:
    """core.ports.store.Store on `base / settings.path`. `hostname` is a part of the files' names."""

    def __init__(
        self,
        settings: MaildirSettings,
        base: Path,
        hostname: str,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        keep_ms = int(seconds(settings.ledger_keep) * 1000)
        self._engine = Engine(base / settings.path, keep_ms, hostname, now_ms)
        self._worker: ThreadPoolExecutor | None = None
        self._waiting: deque[tuple[Job, asyncio.Future[StoreResult]]] = deque()
        self._in_flight: dict[str, asyncio.Future[StoreResult]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = False
        self._closing = False

    async def start(self) -> None:
        """Open the store. Raises StoreOwned while another process has it, OSError when it cannot be used."""
        worker, loop = ThreadPoolExecutor(1, thread_name_prefix="maildir"), asyncio.get_running_loop()
        try:
            await loop.run_in_executor(worker, self._engine.open)
        except BaseException:
            closed = loop.run_in_executor(worker, self._engine.close)
            worker.shutdown(wait=False)
            # Whoever tries again at once must find it closed: this close would take the next one's files from it.
            await asyncio.shield(closed)
            raise
        self._worker = worker
        self._closing = False

    async def close(self) -> None:
        """Finish what was handed over, then release the store."""
        self._closing = True
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        worker, self._worker = self._worker, None
        if worker is not None:
            await asyncio.get_running_loop().run_in_executor(worker, self._engine.close)
            worker.shutdown(wait=False)

    async def deliver(self, deliveries: Sequence[Delivery]) -> Sequence[StoreResult]:
        loop = asyncio.get_running_loop()
        futures = [self._hand_over(delivery, loop) for delivery in deliveries]
        if futures:
            # Not gather: a cancelled caller must not cancel a delivery that somebody else may wait for too.
            await asyncio.wait(set(futures))
        return [future.result() for future in futures]

    def _hand_over(self, delivery: Delivery, loop: asyncio.AbstractEventLoop) -> asyncio.Future[StoreResult]:
        running = self._in_flight.get(delivery.id)
        if running is not None:
            return running
        future: asyncio.Future[StoreResult] = loop.create_future()
        if self._worker is None or self._closing:
            future.set_result(_STOPPING)
            return future
        self._in_flight[delivery.id] = future
        job = Job(delivery.id, delivery.mailbox, delivery.prepend, delivery.body)
        if job.size > WHOLE_LIMIT:
            self._own(self._stage_large(job, future, self._worker))
        else:
            self._enqueue(job, future)
        return future

    def _enqueue(self, job: Job, future: asyncio.Future[StoreResult]) -> None:
        self._waiting.append((job, future))
        if not self._writing and self._worker is not None:
            self._writing = True
            self._own(self._write_batches(self._worker))

    async def _stage_large(self, job: Job, future: asyncio.Future[StoreResult], worker: ThreadPoolExecutor) -> None:
        """Write a large message's bytes between the batches; what went wrong is the job's result."""
        run = asyncio.get_running_loop().run_in_executor
        try:
            if await run(worker, self._engine.begin, job):
                async for piece in job.body.pieces(PIECE):
                    if not await run(worker, self._engine.add, job, piece):
                        break
        except Exception:
            _log.exception("body_unreadable", id=job.id)
            await run(worker, self._engine.abandon, job)
        self._enqueue(job, future)

    async def _write_batches(self, worker: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        # One turn of the loop, so that deliveries of the same moment share the first batch.
        await asyncio.sleep(0)
        while self._waiting:
            batch = self._next_batch()
            jobs = [job for job, _ in batch]
            try:
                await loop.run_in_executor(worker, self._engine.deliver, jobs)
            except Exception:
                # A fault of ours; what was recorded is known by the ledger when it is tried again.
                _log.exception("store_fault", ids=[job.id for job in jobs])
            for job, future in batch:
                del self._in_flight[job.id]
                future.set_result(job.result or _FAULT)
        self._writing = False

    def _next_batch(self) -> list[tuple[Job, asyncio.Future[StoreResult]]]:
        batch = [self._waiting.popleft()]
        size = batch[0][0].size
        while self._waiting and len(batch) < MAX_BATCH and size + self._waiting[0][0].size <= MAX_BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += batch[-1][0].size
        return batch

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="maildir")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
