"""The asynchronous half of the Maildir store: batches, large bodies, repeated ids, stopping."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gatepost.backends.body import MemoryBody
from gatepost.backends.store_maildir import MaildirStore, StoreOwned
from gatepost.backends.store_maildir.engine import Engine, Job
from gatepost.backends.store_maildir.store import MAX_BATCH, WHOLE_LIMIT
from gatepost.core.ids import new_id
from gatepost.core.manifest.settings import MaildirSettings
from gatepost.core.ports.store import Delivery, StoreOutcome

NOW_MS = 1_700_000_000_000


def a_delivery(number: int, body: MemoryBody | None = None, mailbox: str = "alice") -> Delivery:
    return Delivery(
        id=new_id(NOW_MS + number, b"0123456789"),
        mailbox=mailbox,
        recipient=f"{mailbox}@example.test",
        reverse_path="sender@example.org",
        prepend=b"Return-Path: <sender@example.org>\r\n",
        body=body or MemoryBody(b"Subject: %d\r\n\r\ntext\r\n" % number),
        received_ms=NOW_MS,
    )


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[MaildirStore]:
    store = MaildirStore(MaildirSettings(path="mail"), tmp_path, "mx.example.test")
    await store.start()
    yield store
    await store.close()


def contents(tmp_path: Path, mailbox: str = "alice") -> list[bytes]:
    return sorted(path.read_bytes() for path in (tmp_path / "mail" / mailbox / "new").glob("*"))


class Gate:
    """Holds the worker thread before a batch, and notes the batches' sizes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.sizes: list[int] = []
        real = Engine.deliver

        def deliver(engine: Engine, jobs: list[Job]) -> None:
            self.sizes.append(len(jobs))
            self.entered.set()
            assert self.open.wait(20)
            real(engine, jobs)

        monkeypatch.setattr(Engine, "deliver", deliver)


async def test_deliveries_of_the_same_time_share_a_batch(
    store: MaildirStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    first = asyncio.create_task(store.deliver([a_delivery(0)]))
    await asyncio.to_thread(gate.entered.wait, 20)
    later = [asyncio.create_task(store.deliver([a_delivery(number)])) for number in range(1, 40)]
    await asyncio.sleep(0)
    gate.open.set()
    results = await asyncio.gather(first, *later)
    assert {result.outcome for [result] in results} == {StoreOutcome.STORED}
    assert gate.sizes == [1, 39]
    assert len(contents(tmp_path)) == 40


async def test_a_batch_is_bounded(store: MaildirStore, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    gate.open.set()
    results = await store.deliver([a_delivery(number) for number in range(MAX_BATCH + 10)])
    assert len(results) == MAX_BATCH + 10
    assert gate.sizes == [MAX_BATCH, 10]


async def test_the_same_id_at_the_same_time_is_stored_once(store: MaildirStore, tmp_path: Path) -> None:
    delivery = a_delivery(1)
    results = await store.deliver([delivery, delivery])
    more = await asyncio.gather(*(store.deliver([delivery]) for _ in range(5)))
    assert {result.outcome for result in results} == {StoreOutcome.STORED}
    assert {result.outcome for [result] in more} == {StoreOutcome.STORED}
    assert len(contents(tmp_path)) == 1


async def test_large_bodies_go_piece_by_piece_and_stay_byte_for_byte(store: MaildirStore, tmp_path: Path) -> None:
    class Large(MemoryBody):
        def whole(self) -> bytes:
            raise AssertionError("a large body must not be read at once")

    data = bytes(range(256)) * (5 * WHOLE_LIMIT // 256) + b"\r\n.\r\nend"
    delivery = a_delivery(1, Large(data))
    [large], *small = await asyncio.gather(
        store.deliver([delivery]), *(store.deliver([a_delivery(number)]) for number in range(2, 5))
    )
    assert large.outcome is StoreOutcome.STORED
    assert all(result.outcome is StoreOutcome.STORED for [result] in small)
    stored = max(contents(tmp_path), key=len)
    assert hashlib.sha256(stored.removeprefix(delivery.prepend)).hexdigest() == delivery.body.sha256
    assert [result.outcome for result in await store.deliver([delivery])] == [StoreOutcome.STORED]
    assert len(contents(tmp_path)) == 4


async def test_a_large_body_that_breaks_leaves_nothing(store: MaildirStore, tmp_path: Path) -> None:
    class Broken(MemoryBody):
        async def pieces(self, size: int) -> AsyncIterator[bytes]:
            yield self.whole()[:size]
            raise OSError("gone")

    broken = a_delivery(1, Broken(b"x" * 4 * WHOLE_LIMIT))
    [result] = await store.deliver([broken])
    assert (result.outcome, result.code) == (StoreOutcome.DEFERRED, 451)
    assert list((tmp_path / "mail" / ".staging").iterdir()) == []
    [result] = await store.deliver([a_delivery(1)])
    assert result.outcome is StoreOutcome.STORED


async def test_a_caller_that_is_cancelled_does_not_stop_the_delivery(
    store: MaildirStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    caller = asyncio.create_task(store.deliver([a_delivery(1)]))
    await asyncio.to_thread(gate.entered.wait, 20)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    # The same id comes again while the first is still on its way.
    again = asyncio.create_task(store.deliver([a_delivery(1)]))
    await asyncio.sleep(0)
    gate.open.set()
    [result] = await again
    assert result.outcome is StoreOutcome.STORED
    assert gate.sizes == [1]
    assert len(contents(tmp_path)) == 1


async def test_closing_finishes_what_was_handed_over(tmp_path: Path) -> None:
    store = MaildirStore(MaildirSettings(path="mail"), tmp_path, "mx")
    await store.start()
    large = a_delivery(0, MemoryBody(b"x" * 4 * WHOLE_LIMIT))
    calls = [asyncio.create_task(store.deliver([a_delivery(number)])) for number in range(1, 20)]
    calls.append(asyncio.create_task(store.deliver([large])))
    await asyncio.sleep(0)
    await store.close()
    assert {result.outcome for call in calls for result in await call} == {StoreOutcome.STORED}
    [late] = await store.deliver([a_delivery(99)])
    assert (late.outcome, late.code) == (StoreOutcome.DEFERRED, 421)


async def test_a_fault_of_ours_defers_and_the_next_batch_goes_on(
    store: MaildirStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "publish", lambda *_: 1 / 0)
        [result] = await store.deliver([a_delivery(1)])
    assert (result.outcome, result.code, result.enhanced) == (StoreOutcome.DEFERRED, 451, "4.3.0")
    [result] = await store.deliver([a_delivery(1)])
    assert result.outcome is StoreOutcome.STORED
    assert len(contents(tmp_path)) == 1


async def test_a_start_that_failed_has_given_everything_back(
    tmp_path: Path, store: MaildirStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its late close would close what the next attempt has opened meanwhile."""
    second = MaildirStore(MaildirSettings(path="mail"), tmp_path, "mx")
    closed = threading.Event()
    close = second._engine.close

    def slowly() -> None:
        time.sleep(0.05)
        close()
        closed.set()

    monkeypatch.setattr(second._engine, "close", slowly)
    with pytest.raises(StoreOwned):
        await second.start()
    assert closed.is_set()


async def test_a_second_owner_is_told_so_and_may_try_again(tmp_path: Path, store: MaildirStore) -> None:
    second = MaildirStore(MaildirSettings(path="mail"), tmp_path, "mx")
    with pytest.raises(StoreOwned):
        await second.start()
    await store.close()
    await second.start()
    assert (await second.deliver([a_delivery(1)]))[0].outcome is StoreOutcome.STORED
    await second.close()


async def test_nothing_to_deliver(store: MaildirStore) -> None:
    assert await store.deliver([]) == []
