"""Ending what is aiokafka's within a limit: its own stop() and close() wait for a broker that may never answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError


async def stop_consumer(consumer: AIOKafkaConsumer, limit: float) -> None:
    """Leave the group and stop; after `limit` seconds drop everything (the session then times out)."""
    try:
        async with asyncio.timeout(limit):
            await consumer.stop()
            return
    except (TimeoutError, KafkaError, OSError):
        consumer._closed = True
    await _drop(consumer)


async def _drop(consumer: AIOKafkaConsumer) -> None:
    tasks: set[asyncio.Task[object]] = set()
    coordinator, fetcher = consumer._coordinator, consumer._fetcher
    if coordinator is not None:
        for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task"):
            task = getattr(coordinator, name, None)
            if task is not None:
                tasks.add(task)
    if fetcher is not None:
        tasks.add(fetcher._fetch_task)
        tasks.update(fetcher._pending_tasks)
    for task in tasks:
        task.cancel()
    await _close_client(consumer._client)
    if tasks:
        await asyncio.wait(tasks, timeout=1)


async def _close_client(client: AIOKafkaClient) -> None:
    """Close all connections of a client, and wait for that for a second at most. Again is harmless."""
    with suppress(TimeoutError, KafkaError, OSError):
        async with asyncio.timeout(1):
            await client.close()
