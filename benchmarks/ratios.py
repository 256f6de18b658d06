"""Ratios of Gatepost to each peer of a row, with their spread, and the targets, which are set against Postfix."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from peers import TITLES, peer_of
from rows import Row, Sample

# The peer that targets are about.
MEASURE: Final = "postfix"

_CPU_TARGETS: Final = {
    ("accept", 1): 0.5,
    ("accept", 50): 0.25,
    ("deliver", 1): 0.5,
    ("deliver", 50): 0.3,
    ("routing", 1): 0.5,
    ("routing", 50): 0.3,
    ("standalone", 1): 0.3,
    ("standalone", 50): 0.3,
}
_RATE_TARGETS: Final = {
    ("deliver", 1): 2.0,
    ("deliver", 50): 3.0,
    ("routing", 1): 2.0,
    ("routing", 50): 3.0,
}


class Against(msgspec.Struct, frozen=True):
    """`ratio` is of medians; `low` and `high` are the smallest and largest ratio of single rounds."""

    ratio: float
    low: float
    high: float
    theirs: str

    def __str__(self) -> str:
        return f"{self.ratio:.2f} ({self.low:.2f}-{self.high:.2f})"


class Line(msgspec.Struct, frozen=True):
    """One line of the table; `against` by the keys of TITLES."""

    system: str
    what: str
    target: str
    met: bool
    ours: str
    against: Mapping[str, Against]


def lines(rows: Sequence[Row]) -> list[Line]:
    made: list[Line] = []
    for row in rows:
        for name in row.samples:
            if peer_of(name) is None:
                made += _row_lines(row, name)
    return made


def peers_in(table: Sequence[Line]) -> list[str]:
    """The keys of TITLES that a table has columns for."""
    return [key for key in TITLES if any(key in line.against for line in table)]


def _row_lines(row: Row, name: str) -> list[Line]:
    key = (name, row.per_connection)
    what = f"{row.what}, {name}, {row.per_connection} per connection"
    if not row.deliver:
        return [
            _line(row, name, f"{what}: edge", _CPU_TARGETS.get(key), lambda sample: sample.us["edge"]),
            _line(row, name, f"{what}: edge and broker", None, lambda sample: sample.total),
        ]
    return [
        _line(row, name, f"{what}: CPU", _CPU_TARGETS.get(key), lambda sample: sample.total),
        _line(row, name, f"{what}: messages/s", _RATE_TARGETS.get(key), lambda sample: sample.per_second, True),
    ]


def _line(
    row: Row, name: str, what: str, target: float | None, value: Callable[[Sample], float], rate: bool = False
) -> Line:
    """`rate`: messages per second, of which more is better; else microseconds, a peer's of its whole tree."""
    theirs: Callable[[Sample], float] = value if rate else lambda sample: sample.total
    ours = row.samples[name]
    unit = "/s" if rate else " us"
    against = {
        peer: _against(ours, samples, value, theirs, unit)
        for other, samples in row.samples.items()
        if (peer := peer_of(other)) is not None
    }
    said, met = "-", True
    if target is not None:
        ratio = against[MEASURE].ratio
        said = f"{'>=' if rate else '<='} {target:g}"
        met = ratio >= target if rate else ratio <= target
    return Line(name, what, said, met, f"{statistics.median(map(value, ours)):.0f}{unit}", against)


def _against(
    ours: Sequence[Sample],
    theirs: Sequence[Sample],
    value: Callable[[Sample], float],
    peer_value: Callable[[Sample], float],
    unit: str,
) -> Against:
    mine, other = statistics.median(map(value, ours)), statistics.median(map(peer_value, theirs))
    single = [value(own) / peer_value(their) for own, their in zip(ours, theirs, strict=True)]
    return Against(mine / other, min(single), max(single), f"{other:.0f}{unit}")
