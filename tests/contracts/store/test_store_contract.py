"""What every store must do (core/ports/store)."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from typing import Any

import pytest

from gatepost.backends.body import MemoryBody
from gatepost.core.ids import new_id
from gatepost.core.ports.store import Delivery, StoreOutcome, StoreResult

_numbers = itertools.count()


def a_delivery(
    body: bytes | MemoryBody = b"Subject: x\r\n\r\ntext\r\n", mailbox: str = "user0", **changes: Any
) -> Delivery:
    values: dict[str, Any] = {
        "id": new_id(time.time_ns() // 1_000_000, os.urandom(10)),
        "mailbox": mailbox,
        "recipient": f"{mailbox}@example.test",
        "reverse_path": "sender@example.org",
        "prepend": b"X-Number: %d\r\n" % next(_numbers),
        "body": MemoryBody(body) if isinstance(body, bytes) else body,
        "received_ms": 0,
    }
    return Delivery(**(values | changes))


def a_refused_delivery() -> Delivery:
    return a_delivery(mailbox="../nobody", recipient="nobody@example.test")


def content(delivery: Delivery) -> bytes:
    return delivery.prepend + delivery.body.whole()


@pytest.mark.parametrize(
    "body",
    [
        b"Subject: x\r\n\r\ntext\r\n",
        b".\r\n..\r\n.dot\r\n\r\n.\r\n",
        b"Subject: \xe5\xb1\xb1\r\n\r\n\xff\xfe\x80 8 bit\r\n",
        b"\r\n",
        b"Subject: long\r\n\r\n" + b"x" * 990 + b"\r\n",
    ],
)
async def test_a_message_is_stored_byte_for_byte(case: Any, body: bytes) -> None:
    delivery = a_delivery(body)
    [result] = await case.store.deliver([delivery])
    assert (result.outcome, result.code) == (StoreOutcome.STORED, 250)
    [stored] = case.read("user0")
    assert stored.endswith(content(delivery))


async def test_a_large_message(case: Any) -> None:
    delivery = a_delivery(b"Subject: large\r\n\r\n" + (b"." + b"x" * 900 + b"\r\n") * 5000)
    [result] = await case.store.deliver([delivery])
    assert result.outcome is StoreOutcome.STORED
    [stored] = case.read("user0")
    assert stored.endswith(content(delivery))


async def test_many_for_many_mailboxes(case: Any) -> None:
    deliveries = [a_delivery(mailbox=f"user{number % 3}") for number in range(60)]
    results = await asyncio.gather(*(case.store.deliver(deliveries[place::4]) for place in range(4)))
    assert {result.outcome for part in results for result in part} == {StoreOutcome.STORED}
    for number in range(3):
        stored = case.read(f"user{number}")
        assert len(stored) == 20
        for delivery in deliveries[number::3]:
            assert sum(message.endswith(content(delivery)) for message in stored) == 1


async def test_a_repeated_id_is_not_stored_again(case: Any) -> None:
    delivery = a_delivery()
    for _ in range(3):
        results = await case.store.deliver([delivery, delivery])
        assert [result.outcome for result in results] == [StoreOutcome.STORED] * 2
    assert len(case.read("user0")) == 1


async def test_the_null_sender(case: Any) -> None:
    [result] = await case.store.deliver([a_delivery(reverse_path="")])
    assert result.outcome is StoreOutcome.STORED
    assert len(case.read("user0")) == 1


async def test_each_delivery_has_its_own_result_in_order(case: Any) -> None:
    good = [a_delivery() for _ in range(3)]
    results: list[StoreResult] = list(
        await case.store.deliver([a_refused_delivery(), good[0], good[1], a_refused_delivery(), good[2]])
    )
    assert [result.outcome for result in results] == [
        StoreOutcome.REFUSED,
        StoreOutcome.STORED,
        StoreOutcome.STORED,
        StoreOutcome.REFUSED,
        StoreOutcome.STORED,
    ]
    assert results[0].code // 100 == 5
    assert results[0].enhanced.startswith("5.1.")
    assert results[0].text
    assert len(case.read("user0")) == 3


async def test_nothing_to_deliver(case: Any) -> None:
    assert list(await case.store.deliver([])) == []


async def test_a_body_that_cannot_be_read_is_deferred(case: Any) -> None:
    class Broken(MemoryBody):
        def whole(self) -> bytes:
            raise ValueError("the body is closed")

    broken, good = a_delivery(Broken(b"x")), a_delivery()
    results = await case.store.deliver([broken, good])
    assert [result.outcome for result in results] == [StoreOutcome.DEFERRED, StoreOutcome.STORED]
    assert len(case.read("user0")) == 1


async def test_a_store_that_is_closed_defers(case: Any) -> None:
    await case.store.close()
    [result] = await case.store.deliver([a_delivery()])
    assert (result.outcome, result.code) == (StoreOutcome.DEFERRED, 421)
