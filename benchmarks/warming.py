"""The broker's JVM before a row: loaded until its CPU per message falls no more, as of one that runs for days."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rows import measure
from systems import GatepostOnKafka

PORTION: Final = 5_000
MOST: Final = 60_000
MOST_QUICK: Final = 5_000
# A portion that is cheaper by less than this than the cheapest before has brought nothing; so many of them in turn
# are enough (one that was disturbed says little).
GAIN: Final = 0.05
ENOUGH: Final = 4


def warm_broker(own: GatepostOnKafka, most: int, *, deliver: bool, say: Callable[[str], None]) -> int:
    """Load the broker with at most so many messages, one per connection (the most requests); return how many."""
    sent, least, without_gain = 0, float("inf"), 0
    while sent < most and without_gain < ENOUGH:
        cost = measure(own, PORTION, 1, deliver=deliver).us["broker"]
        sent += PORTION
        without_gain = 0 if cost < least * (1 - GAIN) else without_gain + 1
        least = min(least, cost)
        say(f"  warming the broker up: {cost:.0f} us of its CPU per message after {sent}")
    return sent
