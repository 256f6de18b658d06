"""The LMTP store's own: what a server's replies become, and ids that come again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from gatepost.backends import store_lmtp
from gatepost.backends.body import MemoryBody
from gatepost.backends.store_lmtp import LmtpStore
from gatepost.core.ids import new_id
from gatepost.core.manifest.settings import LmtpSettings
from gatepost.core.ports.store import Delivery, StoreOutcome, StoreResult
from testbed.smtpsink import SmtpSink


@pytest.fixture
def sink() -> Iterator[SmtpSink]:
    with SmtpSink(lmtp=True) as sink:
        yield sink


@pytest.fixture
async def store(sink: SmtpSink) -> AsyncIterator[LmtpStore]:
    store = LmtpStore(LmtpSettings(address=f"127.0.0.1:{sink.port}", timeout="20s"), "mx.example.test")
    await store.start()
    yield store
    await store.close()


def a_delivery(**changes: Any) -> Delivery:
    values: dict[str, Any] = {
        "id": new_id(1, os.urandom(10)),
        "mailbox": "alice",
        "recipient": "alice@example.test",
        "reverse_path": "sender@example.org",
        "prepend": b"Return-Path: <sender@example.org>\r\n",
        "body": MemoryBody(b"text\r\n"),
        "received_ms": 0,
    }
    return Delivery(**(values | changes))


@pytest.mark.parametrize(
    ("point", "reply", "result"),
    [
        ("END", "250 2.0.0 fine", StoreResult(StoreOutcome.STORED, 250, "2.0.0", "fine", "127.0.0.1")),
        ("END", "452 4.2.2 full", StoreResult(StoreOutcome.DEFERRED, 452, "4.2.2", "full", "127.0.0.1")),
        ("END", "552 5.2.2 full", StoreResult(StoreOutcome.REFUSED, 552, "5.2.2", "full", "127.0.0.1")),
        ("RCPT", "550 5.1.1 nobody", StoreResult(StoreOutcome.REFUSED, 550, "5.1.1", "nobody", "127.0.0.1")),
        ("RCPT", "450 later", StoreResult(StoreOutcome.DEFERRED, 450, "4.0.0", "later", "127.0.0.1")),
        ("MAIL", "554 no", StoreResult(StoreOutcome.REFUSED, 554, "5.0.0", "no", "127.0.0.1")),
        # What concerns the server as a whole says nothing of the mail.
        ("CONNECT", "554 5.3.2 closed", StoreResult(StoreOutcome.DEFERRED, 451, "4.4.2", "closed", "127.0.0.1")),
        ("LHLO", "550 5.7.1 not you", StoreResult(StoreOutcome.DEFERRED, 451, "4.4.2", "not you", "127.0.0.1")),
    ],
)
async def test_replies(store: LmtpStore, sink: SmtpSink, point: str, reply: str, result: StoreResult) -> None:
    sink.script(point, reply)
    assert list(await store.deliver([a_delivery()])) == [result]


@pytest.mark.parametrize("point", ["CONNECT", "LHLO", "MAIL", "RCPT", "DATA", "BODY", "END"])
async def test_a_connection_that_breaks_defers(store: LmtpStore, sink: SmtpSink, point: str) -> None:
    sink.script(point, drop=True, times=1)
    delivery = a_delivery()
    [result] = await store.deliver([delivery])
    assert (result.outcome, result.enhanced[:4]) == (StoreOutcome.DEFERRED, "4.4.")
    [result] = await store.deliver([delivery])
    assert result.outcome is StoreOutcome.STORED


async def test_a_server_that_is_away_defers(sink: SmtpSink, store: LmtpStore) -> None:
    sink.stop()
    [result] = await store.deliver([a_delivery()])
    assert (result.outcome, result.code, result.enhanced) == (StoreOutcome.DEFERRED, 451, "4.4.1")
    sink.start()
    [result] = await store.deliver([a_delivery()])
    assert result.outcome is StoreOutcome.STORED


async def test_only_finished_ids_are_remembered(store: LmtpStore, sink: SmtpSink) -> None:
    sink.script("END", "452 4.2.2 full", times=1)
    delivery = a_delivery()
    outcomes = [(await store.deliver([delivery]))[0].outcome for _ in range(3)]
    assert outcomes == [StoreOutcome.DEFERRED, StoreOutcome.STORED, StoreOutcome.STORED]
    assert len(sink.transactions) == 2


async def test_the_memory_is_bounded(store: LmtpStore, sink: SmtpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_lmtp, "REMEMBERED", 2)
    first, *others = [a_delivery() for _ in range(4)]
    for delivery in (first, *others):
        await store.deliver([delivery])
    await store.deliver([first, others[-1]])
    assert len(sink.transactions) == 5


async def test_a_cancelled_delivery_is_finished_and_known(store: LmtpStore, sink: SmtpSink) -> None:
    sink.script("END", delay=0.2)
    delivery = a_delivery()
    caller = asyncio.create_task(store.deliver([delivery]))
    await asyncio.to_thread(sink.await_sessions, 1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    [result] = await store.deliver([delivery])
    assert result.outcome is StoreOutcome.STORED
    assert len(sink.transactions) == 1


async def test_connections_are_bounded_and_used_again(sink: SmtpSink) -> None:
    store = LmtpStore(LmtpSettings(address=f"127.0.0.1:{sink.port}", connections=2), "mx.example.test")
    await store.start()
    results = await store.deliver([a_delivery() for _ in range(30)])
    assert {result.outcome for result in results} == {StoreOutcome.STORED}
    assert 1 <= len(sink.sessions) <= 2
    await store.close()
