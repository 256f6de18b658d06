"""Writing statuses: a few at once, failures stay with their object, and an API server that is away is spared."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from gatepost.core.manifest.object import ObjectKey
from gatepost_operator.cluster import ClusterRefused, ClusterUnavailable
from gatepost_operator.cluster_memory import MemoryCluster
from gatepost_operator.status_writer import AT_ONCE, LONGEST_PAUSE_S, StatusWriter

Document = dict[str, Any]
Make = Callable[..., Document]


class Times:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def running(cluster: Any, times: Times) -> AsyncIterator[tuple[StatusWriter, list[str]]]:
    written: list[str] = []
    writer = StatusWriter(cluster, lambda document: written.append(document["metadata"]["name"]), times)
    task = asyncio.create_task(writer.run())
    yield writer, written
    task.cancel()
    await asyncio.wait([task])


def offers(*names: str) -> dict[ObjectKey, Document]:
    return {ObjectKey("MailDomain", "default", name): {"observedGeneration": 1} for name in names}


async def test_what_is_offered_is_written_and_given_back(mail_domain: Make, until: Any) -> None:
    cluster = MemoryCluster()
    for name in "ab":
        cluster.store(mail_domain(name))
    async with running(cluster, Times()) as (writer, written):
        writer.offer(offers("a", "b"))
        await until(lambda: sorted(written) == ["a", "b"])
    assert cluster.objects[ObjectKey("MailDomain", "default", "a")]["status"] == {"observedGeneration": 1}


async def test_an_object_that_is_gone_is_no_failure(mail_domain: Make, until: Any) -> None:
    cluster = MemoryCluster()
    cluster.store(mail_domain("a"))
    async with running(cluster, Times()) as (writer, written):
        writer.offer(offers("gone", "a"))
        await until(lambda: written == ["a"])


async def test_a_failure_blocks_nobody_else_and_is_tried_again_later(mail_domain: Make, until: Any) -> None:
    cluster, times = MemoryCluster(), Times()
    for name in "abc":
        cluster.store(mail_domain(name))
    (bad,) = offers("b")
    cluster.fail[bad] = ClusterRefused("not valid")
    async with running(cluster, times) as (writer, written):
        writer.offer(offers("a", "b", "c"))
        await until(lambda: sorted(written) == ["a", "c"])
        del cluster.fail[bad]
        cluster.store(mail_domain("d"))
        writer.offer(offers("b", "d"))
        await until(lambda: "d" in written)
        assert "b" not in written, "its pause is not over"
        times.now += 2.0
        writer.offer(offers("b"))
        await until(lambda: "b" in written)


async def test_pauses_grow_to_a_limit() -> None:
    cluster, times = MemoryCluster(), Times()
    (key,) = offers("a")
    cluster.fail[key] = ClusterRefused("not valid")
    tries: list[float] = []
    apply = cluster.apply_status

    async def counted(*arguments: Any) -> Any:
        tries.append(times.now)
        return await apply(*arguments)

    cluster.apply_status = counted  # type: ignore[method-assign]
    async with running(cluster, times) as (writer, _):
        for _second in range(600):
            writer.offer(offers("a"))
            for _turn in range(3):
                await asyncio.sleep(0)
            times.now += 1.0
    waits = [after - before for before, after in itertools.pairwise(tries)]
    assert waits[0] <= 3
    assert max(waits) <= LONGEST_PAUSE_S + 1
    assert len(tries) < 40


async def test_an_api_server_that_is_away_is_not_hammered(until: Any) -> None:
    times = Times()

    class Away(MemoryCluster):
        calls = 0

        async def apply_status(self, kind: str, namespace: str, name: str, status: Document) -> Document | None:
            self.calls += 1
            await asyncio.sleep(0)
            raise ClusterUnavailable("away")

    cluster = Away()
    async with running(cluster, times) as (writer, _):
        writer.offer(offers(*(f"d{number}" for number in range(500))))
        await until(lambda: cluster.calls)
        for _turn in range(100):
            await asyncio.sleep(0)
    assert cluster.calls <= AT_ONCE


async def test_what_is_no_longer_wanted_is_not_written(mail_domain: Make, until: Any) -> None:
    gate = asyncio.Event()

    class Slow(MemoryCluster):
        async def apply_status(self, kind: str, namespace: str, name: str, status: Document) -> Document | None:
            await gate.wait()
            return await super().apply_status(kind, namespace, name, status)

    cluster = Slow()
    names = [f"d{number:02d}" for number in range(AT_ONCE + 5)]
    for name in names:
        cluster.store(mail_domain(name))
    async with running(cluster, Times()) as (writer, written):
        writer.offer(offers(*names))
        for _turn in range(5):
            await asyncio.sleep(0)
        writer.offer({})
        gate.set()
        await until(lambda: len(written) == AT_ONCE)
    assert sorted(written) == names[:AT_ONCE]
