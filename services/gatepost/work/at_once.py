"""Doing a step without a task of its own where it has nothing to wait for, which is nearly always."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class WouldWait(Exception):
    """The step has to wait for something. It was given up where it stood and must be begun anew."""


def at_once(step: Coroutine[Any, Any, T]) -> T:
    """Run `step` to its end and return what it returns, or raise what it raises.

    Raises WouldWait at its first wait; so nothing that `step` does before that may be an effect, or harm when it
    is repeated. A question that it has asked of others goes on, and its repetition finds the answer.
    """
    try:
        waits_for = step.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    step.close()
    if isinstance(waits_for, asyncio.Future):
        # Nobody else waits for it, so asyncio would complain of an exception that nobody has seen.
        waits_for.add_done_callback(_seen)
    raise WouldWait


def _seen(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
