"""Lines for standard error: what is told of every message shares calls of the system, others are there at once.

A call for each would cost an edge a twentieth of its CPU, and a standalone gateway a tenth: each lets go of the
interpreter's lock, which other threads then take.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections import deque
from typing import Final, Protocol


class Stream(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> None: ...


class GatheredLines:
    """Takes whole lines from any thread. What was gathered is written before what is flushed, and at exit."""

    def __init__(self, stream: Stream) -> None:
        self._stream: Final = stream
        self._lines: deque[bytes] = deque()
        # Garbage that is collected in the midst of a flush may have something to say.
        self._lock = threading.RLock()
        self._scheduled: asyncio.AbstractEventLoop | None = None
        atexit.register(self.flush)

    def write(self, data: bytes) -> int:
        """Take a line with its end; flush() writes it now."""
        self._lines.append(data)
        return len(data)

    def gather(self, line: bytes) -> None:
        """Take a line with its end; written at the end of this round of the event loop; without one, at once."""
        self._lines.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if self._scheduled is not loop:
            self._scheduled = loop
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write all that is here."""
        self._scheduled = None
        with self._lock:
            data = b"".join([self._lines.popleft() for _ in range(len(self._lines))])
            if data:
                self._stream.write(data)
                self._stream.flush()
