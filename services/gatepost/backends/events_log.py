"""The events port over a log: a bounded buffer that one task writes, so that events never hold up mail.

Events of the same moment share a record: its value is their JSON, one event a line, which any Kafka tool can
read. A record has no key and lies in any partition; a reader looks at all of them, from the time on that is in
an id (Log.follower with since_ms).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from gatepost.core.ports.events import Event
from gatepost.core.ports.log import Entry, Log, LogError
from gatepost.core.sampling import is_written
from gatepost.telemetry import metrics
from gatepost.telemetry.lasting import lasting

# About 3 s of a busy edge; at some 300 bytes each no more than 3 MB.
BUFFER_EVENTS: Final = 10_000
# In one record: some 80 KB, far below a broker's limit even with long facts.
RECORD_EVENTS: Final = 256
RECORD_BYTES: Final = 512 * 1024
# How long an event waits for company, in seconds.
FLUSH_SECONDS: Final = 0.1
# How long to wait after the log did not take them, and how long it may take.
_RETRY_SECONDS: Final = 1.0
APPEND_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 3.0

_log = structlog.get_logger(__name__)
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


class EventsLog:
    """Implements the events port. Needs start(), and close() to write what is left."""

    def __init__(self, log: Log, topic: str, *, buffer: int = BUFFER_EVENTS, share: float = 1.0) -> None:
        """`share`: of how many messages (0 to 1) the events of going well are written (core/sampling)."""
        self._log = log
        self._share = share
        self._topic = topic
        self._buffer: deque[bytes] = deque()
        self._most = buffer
        self._dropped = 0
        self._reported = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._failed = False
        self._task: asyncio.Task[None] | None = None

    @property
    def dropped(self) -> int:
        """How many events were lost since the start: the buffer was full, they were too large, or at the end."""
        return self._dropped

    async def start(self) -> None:
        if self._task is None:
            self._task = lasting("events", self._run)

    def emit(self, event: Event) -> None:
        """Hand an event over; when the buffer is full it is dropped and counted."""
        if self._share < 1 and not is_written(event.kind, event.id, self._share):
            return
        line = _encoder.encode(event)
        if len(self._buffer) >= self._most or len(line) > RECORD_BYTES or self._closing:
            self._dropped += 1
            return
        self._buffer.append(line)
        if len(self._buffer) == 1:
            self._wake.set()

    async def close(self) -> None:
        """Write what is left, for at most CLOSE_SECONDS; what could not be written then is counted as dropped."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await asyncio.shield(self._task)
            except TimeoutError:
                self._task.cancel()
                with suppress(asyncio.CancelledError):
                    await self._task
            self._task = None
        self._dropped += len(self._buffer)
        self._buffer.clear()
        self._report()

    async def _run(self) -> None:
        while self._buffer or not self._closing:
            if not self._buffer:
                self._wake.clear()
                await self._wake.wait()
                continue
            if not self._closing and len(self._buffer) < RECORD_EVENTS:
                await asyncio.sleep(FLUSH_SECONDS)
            if not await self._write(self._take()) and not self._closing:
                await asyncio.sleep(_RETRY_SECONDS)
            self._report()
            if self._closing and self._failed:
                return

    async def _write(self, lines: Sequence[bytes]) -> bool:
        self._failed = True
        try:
            await self._log.append(Entry(topic=self._topic, value=b"\n".join(lines)), APPEND_SECONDS)
            self._failed = False
        except LogError as error:
            # After an unknown outcome an event may stand there twice: a reader shows it once.
            _log.debug("events wait for the log", reason=str(error))
        finally:
            if self._failed:
                self._put_back(lines)
        return not self._failed

    def _take(self) -> list[bytes]:
        lines: list[bytes] = []
        size = 0
        while self._buffer and len(lines) < RECORD_EVENTS:
            size += len(self._buffer[0]) + 1
            if lines and size > RECORD_BYTES:
                break
            lines.append(self._buffer.popleft())
        return lines

    def _put_back(self, lines: Sequence[bytes]) -> None:
        room = max(self._most - len(self._buffer), 0)
        self._dropped += max(len(lines) - room, 0)
        self._buffer.extendleft(reversed(lines[:room]))

    def _report(self) -> None:
        if self._dropped > self._reported:
            metrics.EVENTS_DROPPED.add(by=self._dropped - self._reported)
            _log.warning("events were dropped", count=self._dropped - self._reported)
            self._reported = self._dropped


def decode_events(value: bytes) -> Sequence[Event]:
    """Return the events in a record's value. Raises msgspec.MsgspecError when it is none of ours."""
    return [_decoder.decode(line) for line in value.splitlines()]
