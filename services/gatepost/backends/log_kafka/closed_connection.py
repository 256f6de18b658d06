"""A write to a connection that the broker has closed is an error of the connection, under uvloop too.

asyncio's transports pass over such a write, and aiokafka expects OSError at most. uvloop's raise RuntimeError
(aiokafka issue 1038), which aiokafka does not know: it would end its heartbeats, its rebalances and, silently and
for good, its task that keeps the metadata.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError


def tell_as_kafka_error() -> None:
    """Have every connection of aiokafka's raise KafkaConnectionError for it. Again is harmless."""
    for name in ("send", "_send_sasl_token"):
        write = getattr(AIOKafkaConnection, name)
        if not hasattr(write, "__wrapped__"):
            setattr(AIOKafkaConnection, name, _telling(write))


def _telling(write: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(write)
    def writing(self: AIOKafkaConnection, *arguments: Any, **options: Any) -> Any:
        try:
            return write(self, *arguments, **options)
        except RuntimeError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error

    return writing
