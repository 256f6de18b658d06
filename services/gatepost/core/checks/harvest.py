"""Check `harvest`: a network that names many unknown recipients is kept away for a while (a dictionary attack).

Counted over a sliding window under the client's network, for one attack comes over many connections and from
neighbouring hosts. A number alone would hit a large sender whose lists are old, so the share counts as well. Pure:
time comes in as an argument. Memory is bounded; the networks that were quiet for longest are forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

import msgspec

from gatepost.core.abuse import MOST_SUBJECTS, STEPS

CHECK: Final = "harvest"


class HarvestPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """Banned for `ban` seconds: from `min_unknown` unknown ones, and this share of all, within `window` seconds."""

    min_unknown: int = 50
    min_unknown_percent: int = 50
    window: float = 86_400.0
    ban: float = 14_400.0


class Count(msgspec.Struct, frozen=True):
    """How many recipients were named in the window, and how many of them nobody knows."""

    unknown: int = 0
    named: int = 0


def evaluate(policy: HarvestPolicy, count: Count) -> bool:
    """Whether so many are a harvest."""
    return count.unknown >= policy.min_unknown and count.unknown * 100 >= count.named * policy.min_unknown_percent


class _Subject:
    """One network's window: (number of the step, unknown, named), oldest first, and their sums."""

    __slots__ = ("named", "steps", "unknown")

    def __init__(self) -> None:
        self.steps: deque[list[int]] = deque()
        self.unknown = self.named = 0

    def drop_before(self, number: int) -> None:
        while self.steps and self.steps[0][0] <= number - STEPS:
            _, unknown, named = self.steps.popleft()
            self.unknown -= unknown
            self.named -= named


class HarvestWatch:
    """What was seen of each network in a window of so many seconds."""

    def __init__(self, window: float, most: int = MOST_SUBJECTS) -> None:
        self._step_ms = max(1, int(window * 1000 / STEPS))
        self._most = most
        self._subjects: OrderedDict[str, _Subject] = OrderedDict()

    def __len__(self) -> int:
        return len(self._subjects)

    def see(self, network: str, *, unknown: bool, at_ms: int) -> Count:
        """Count one recipient; return what there is in the window now."""
        number = at_ms // self._step_ms
        subject = self._of(network)
        subject.drop_before(number)
        if not subject.steps or subject.steps[-1][0] < number:
            subject.steps.append([number, 0, 0])
        step = subject.steps[-1]
        step[1] += unknown
        step[2] += 1
        subject.unknown += unknown
        subject.named += 1
        return Count(subject.unknown, subject.named)

    def look(self, network: str, *, at_ms: int) -> Count:
        """Return what there is in the window now, without counting."""
        subject = self._subjects.get(network)
        if subject is None:
            return Count()
        subject.drop_before(at_ms // self._step_ms)
        return Count(subject.unknown, subject.named)

    def forget(self, network: str) -> None:
        """Begin anew: what was counted has led to a ban."""
        self._subjects.pop(network, None)

    def _of(self, network: str) -> _Subject:
        subject = self._subjects.get(network)
        if subject is None:
            subject = self._subjects[network] = _Subject()
            if len(self._subjects) > self._most:
                self._subjects.popitem(last=False)
        else:
            self._subjects.move_to_end(network)
        return subject
