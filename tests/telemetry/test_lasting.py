"""Background tasks: a fault is seen and counted, and they begin again."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from gatepost.telemetry import lasting as module
from gatepost.telemetry import metrics
from gatepost.telemetry.lasting import lasting

LIMIT = 5.0


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(metrics.BACKGROUND_FAULTS, "values", {})


class Work:
    """Fails as told, then waits for its cancellation."""

    def __init__(self, *faults: BaseException) -> None:
        self._faults = list(faults)
        self.lasts = asyncio.Event()

    async def __call__(self) -> None:
        if self._faults:
            raise self._faults.pop(0)
        self.lasts.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("fault", [RuntimeError("closed"), asyncio.CancelledError()])
async def test_a_task_that_failed_begins_again(fault: BaseException) -> None:
    work = Work(fault, fault)
    with capture_logs() as lines:
        task = lasting("probe", work)
        async with asyncio.timeout(LIMIT):
            await work.lasts.wait()
    assert metrics.BACKGROUND_FAULTS.values == {("probe",): 2}
    assert [(line["event"], line["task"], line["exc_info"]) for line in lines] == [
        ("background.fault", "probe", fault)
    ] * 2
    task.cancel()
    await asyncio.wait({task}, timeout=LIMIT)
    assert task.cancelled()


async def test_a_task_that_returns_has_ended() -> None:
    async def work() -> None:
        return

    async with asyncio.timeout(LIMIT):
        await lasting("short", work)
    assert metrics.BACKGROUND_FAULTS.values == {}


async def test_a_task_can_be_cancelled_between_two_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", LIMIT * 2)
    failed = asyncio.Event()

    async def work() -> None:
        failed.set()
        raise RuntimeError

    task = lasting("probe", work)
    await failed.wait()
    task.cancel()
    async with asyncio.timeout(LIMIT):
        await asyncio.wait({task})
    assert task.cancelled()
