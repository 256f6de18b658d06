"""A removal of most domains at once waits; anything smaller does not."""

from __future__ import annotations

import pytest

from gatepost.core.configuration import CLOSED, Configuration, DeliveryPlan, DomainConfig
from gatepost_operator.removal import held_back, read_allowance


def serving(*names: str) -> Configuration:
    domains = (DomainConfig(f"{name}.test", "", 1, "Any", DeliveryPlan("Discard")) for name in sorted(names))
    return Configuration(1, tuple(domains), ())


@pytest.mark.parametrize(
    ("old", "new", "held"),
    [
        (None, CLOSED, 0),
        (CLOSED, serving("a"), 0),
        (serving("a"), CLOSED, 0),  # one is an ordinary deletion
        (serving("a", "b"), CLOSED, 2),
        (serving("a", "b"), serving("a"), 0),
        (serving("a", "b", "c"), serving("a"), 2),
        (serving("a", "b", "c", "d"), serving("a", "b"), 0),  # half is not more than half
        (serving("a", "b", "c", "d"), serving("a"), 3),
        (serving("a", "b", "c"), serving("x", "y", "z"), 3),  # others in their place do not help
    ],
)
def test_more_than_one_and_more_than_half_wait(old: Configuration | None, new: Configuration, held: int) -> None:
    removal = held_back(old, new)
    assert (len(removal.domains) if removal else 0) == held


def test_it_says_what_would_go() -> None:
    removal = held_back(serving(*"abcdefg"), serving("a"))
    assert str(removal) == ("6 of 7 domains would be removed at once (b.test, c.test, d.test, e.test, f.test, ...)")


@pytest.mark.parametrize(
    ("text", "number"),
    [("3", 3), ("0", 0), ("", 0), (None, 0), ("all", 0), ("-3", 0), ("³", 0), ("9" * 30, 0), (3, 0), ("1.5", 0)],
)
def test_only_a_number_allows(text: object, number: int) -> None:
    assert read_allowance(text) == number
