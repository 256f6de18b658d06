"""Abuse is counted over a sliding window, in bounded memory, and told once for each window in which it goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.abuse import (
    MEANING,
    MOST_SHOWN,
    MOST_SUBJECTS,
    STEPS,
    AbuseWatch,
    Kind,
    Limits,
    Sighting,
    network_of,
)

WINDOW_S = 600.0
START_MS = 1_800_000_000_000


def watch(limit: int = 3) -> AbuseWatch:
    return AbuseWatch(Limits(WINDOW_S, dict.fromkeys(Kind, limit)))


def sighting(at_s: float = 0.0, number: int = 0, **more: object) -> Sighting:
    fields: dict[str, object] = {
        "kind": Kind.RELAY,
        "subject": "192.0.2.0/24",
        "at_ms": START_MS + int(at_s * 1000),
        "id": f"id-{number}",
        "client": "192.0.2.1",
        **more,
    }
    return Sighting(**fields)  # type: ignore[arg-type]


def test_an_alarm_says_who_how_much_since_when_and_by_which_ids() -> None:
    own = watch()
    assert own.see(sighting(0, 0, target="a@x.example", client="192.0.2.9")) is None
    assert own.see(sighting(5, 1, target="b@x.example")) is None
    alarm = own.see(sighting(7, 2, target="c@x.example", helo="pc", login="alice"))
    assert alarm is not None
    assert (alarm.kind, alarm.subject, alarm.count, alarm.limit) == (Kind.RELAY, "192.0.2.0/24", 3, 3)
    assert (alarm.first_ms, alarm.last_ms) == (START_MS, START_MS + 7000)
    assert (alarm.first_id, alarm.last_id) == ("id-0", "id-2")
    assert (alarm.helo, alarm.login) == ("pc", "alice")
    assert alarm.clients == ("192.0.2.9", "192.0.2.1")
    assert alarm.targets == ("a@x.example", "b@x.example", "c@x.example")


def test_what_is_older_than_a_window_does_not_count() -> None:
    own = watch()
    for number, at in enumerate((0, 1, WINDOW_S + 1, WINDOW_S + 2)):
        assert own.see(sighting(at, number)) is None
    assert own.see(sighting(WINDOW_S + 3)) is not None


def test_it_is_told_once_and_again_while_it_goes_on() -> None:
    own = watch()
    told = [at for at in range(0, 1900, 10) if own.see(sighting(at)) is not None]
    assert told == [20, 620, 1220, 1820]


def test_kinds_and_subjects_are_counted_apart() -> None:
    own = watch(2)
    assert own.see(sighting()) is None
    assert own.see(sighting(kind=Kind.AUTH)) is None
    assert own.see(sighting(subject="198.51.100.0/24")) is None
    assert own.see(sighting()) is not None


def test_weights_count_and_zero_switches_off() -> None:
    assert watch(100).see(sighting(weight=100)) is not None
    off = watch(0)
    assert not off.watches(Kind.RELAY)
    assert off.see(sighting(weight=1000)) is None
    assert off.remembered(Kind.RELAY) == 0


def test_memory_is_bounded_and_who_goes_on_stays_in_view() -> None:
    own = watch(MOST_SUBJECTS)
    for number in range(MOST_SUBJECTS * 2):
        own.see(sighting(subject=f"net-{number}"))
        alarm = own.see(sighting(subject="worm", target=f"{number}@x.example"))
        if alarm is not None:
            assert len(alarm.targets) == MOST_SHOWN
            break
    else:
        pytest.fail("the subject that went on was forgotten")
    assert own.remembered(Kind.RELAY) <= MOST_SUBJECTS


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 4)), max_size=60), st.integers(1, 20))
def test_a_count_is_never_more_than_what_the_window_held(gaps: list[tuple[int, int]], limit: int) -> None:
    """Against a plain list: never more than the last window, never less than the last window but one step."""
    own, seen, now = watch(limit), [], 0
    for gap, weight in gaps:
        now += gap
        seen.append((now, weight))
        alarm = own.see(sighting(now, weight=weight))
        if alarm is not None:
            most = sum(weight for at, weight in seen if at > now - WINDOW_S)
            least = sum(weight for at, weight in seen if at > now - WINDOW_S * (STEPS - 1) / STEPS)
            assert least <= alarm.count <= most


@pytest.mark.parametrize(
    ("client", "network"),
    [("192.0.2.77", "192.0.2.0/24"), ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64")],
)
def test_networks(client: str, network: str) -> None:
    assert network_of(client) == network


def test_every_kind_has_a_meaning() -> None:
    assert set(MEANING) == set(Kind)
