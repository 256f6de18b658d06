"""Guards: when most domains would vanish at once, somebody probably made a mistake, and mail would be refused.

The configuration in force then stays until a person says how many domains may go. Deletions come one by one, and
each alone would be an ordinary one: they are gathered first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from gatepost.core.configuration import Configuration

ANNOTATION: Final = "gatepost.dev/allow-mass-removal"
"""On the operator's Lease: the number of domains that may be removed at once. Used up by one publication."""


QUIET_S: Final = 2.0
LONGEST_S: Final = 10.0


class Removal(msgspec.Struct, frozen=True):
    """A removal that waits for a person's word."""

    domains: tuple[str, ...]
    of: int

    def __str__(self) -> str:
        some = ", ".join(self.domains[:5]) + (", ..." if len(self.domains) > 5 else "")
        return f"{len(self.domains)} of {self.of} domains would be removed at once ({some})"


def held_back(old: Configuration | None, new: Configuration) -> Removal | None:
    """Return the removal that needs a person's word: more than one domain, and more than half of all.

    None when the new configuration may replace the old one.
    """
    if old is None:
        return None
    before = {domain.domain for domain in old.domains}
    removed = before - {domain.domain for domain in new.domains}
    if len(removed) <= 1 or len(removed) * 2 <= len(before):
        return None
    return Removal(tuple(sorted(removed)), len(before))


def read_allowance(text: object) -> int:
    """Return the number in the annotation, 0 for anything that is none."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10 else 0


class Gathering:
    """Gathers deletions: they count when nothing more went for `quiet_s`, LONGEST_S after the first at latest."""

    def __init__(self, monotonic: Callable[[], float], quiet_s: float = QUIET_S) -> None:
        self._monotonic, self._quiet_s = monotonic, quiet_s
        self._gone: frozenset[str] = frozenset()
        self._first = self._newest = 0.0

    def remaining(self, gone: frozenset[str]) -> float:
        """Return how long to wait before the objects in `gone` may be removed, in seconds; 0 when they may be."""
        now = self._monotonic()
        if not self._gone:
            self._first = now
        if gone != self._gone:
            self._newest = now
        self._gone = gone
        if not gone:
            return 0.0
        return max(min(self._newest + self._quiet_s, self._first + LONGEST_S) - now, 0.0)
