"""Appends in flight: one future for the caller, and what becomes of it when the caller's limit passes.

`append` is the hot path of an edge, so a limit costs no task and no timer of its own: appends that expire
within the same tenth of a second share one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from typing import Final

from gatepost.core.ports.log import LogError, LogUnavailable, LogUnknown, Position

# How much later than its limit an append may be given up; fewer timers in exchange.
TICK: Final = 0.1


class Outcome:
    """What became of an append that expired: awaitable, by several, without one cancelling it for another."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[Position] = loop.create_future()
        # Nobody has to ask.
        self.future.add_done_callback(_retrieve)

    def __await__(self) -> Generator[object, None, Position]:
        return asyncio.shield(self.future).__await__()


class Pending:
    """One append in flight. `waiter` is what the caller awaits; it may be cancelled at any time."""

    __slots__ = ("outcome", "waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.waiter: asyncio.Future[Position] = loop.create_future()
        self.outcome: Outcome | None = None

    def resolve(self, position: Position) -> None:
        """The record is durable at `position`."""
        target = self.waiter if self.outcome is None else self.outcome.future
        if not target.done():
            target.set_result(position)

    def fail(self, error: LogError) -> None:
        """The record is not durable, for the reason given."""
        target = self.waiter if self.outcome is None else self.outcome.future
        if not target.done():
            target.set_exception(error)

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        if not self.waiter.cancel():
            _retrieve(self.waiter)

    def expire(self) -> None:
        """The limit has passed: the caller gets LogUnknown, and what comes later goes to its outcome."""
        if self.waiter.done():
            return
        outcome = self.outcome = Outcome(self.waiter.get_loop())
        self.waiter.set_exception(
            LogUnknown("the append did not end within its limit; it may still be written", outcome)
        )


class Deadlines:
    """Expires appends. One per log; needs no closing once every append has come to an end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ticks: dict[int, list[Pending]] = {}

    def add(self, pending: Pending, limit: float) -> None:
        """Have `pending` expire between `limit` and `limit` + TICK seconds from now if it is not done by then."""
        tick = int((self._loop.time() + limit) / TICK) + 1
        waiting = self._ticks.get(tick)
        if waiting is not None:
            waiting.append(pending)
            return
        self._ticks[tick] = [pending]
        self._loop.call_at(tick * TICK, self._expire, tick)

    def _expire(self, tick: int) -> None:
        for pending in self._ticks.pop(tick):
            if not pending.waiter.done():
                pending.expire()


async def all_of(pendings: Sequence[Pending]) -> Sequence[Position]:
    """Wait for several appends that belong together; raises as Log.append_many does."""
    positions = []
    errors: list[LogError] = []
    try:
        for pending in pendings:
            try:
                positions.append(await pending.waiter)
            except LogError as error:
                errors.append(error)
    except asyncio.CancelledError:
        for pending in pendings:
            pending.abandon()
        raise
    if not errors:
        return positions
    if not positions and all(isinstance(error, LogUnavailable) for error in errors):
        raise errors[0]
    raise LogUnknown(
        f"{len(errors)} of {len(pendings)} appends that belong together did not succeed: {errors[0]}",
        _Together(errors),
    )


class _Together:
    """The outcome of several appends: the last one's position once all are written, else an error."""

    def __init__(self, errors: Sequence[LogError]) -> None:
        self._errors = errors

    def __await__(self) -> Generator[object, None, Position]:
        position: Position | None = None
        for error in self._errors:
            if not isinstance(error, LogUnknown):
                raise error
            position = yield from error.outcome.__await__()
        assert position is not None
        return position


def _retrieve(future: asyncio.Future[Position]) -> None:
    if not future.cancelled():
        future.exception()
