"""Bans and the harvests that lead to them: whom a ban is about, how long it lasts, what is counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.bans import (
    LONGEST_MS,
    Ban,
    BanCause,
    BanError,
    BanIndex,
    account_key,
    client_key,
    key_of,
    sender_key,
    subject_of,
)
from gatepost.core.checks.harvest import Count, HarvestPolicy, HarvestWatch, evaluate

NOW = 1_790_000_000_000
HOUR = 3_600_000


def ban(hours: float = 4, cause: BanCause = BanCause.HARVEST) -> Ban:
    return Ban(NOW, NOW + int(hours * HOUR), cause)


def index(*subjects: str) -> BanIndex:
    made = BanIndex()
    for subject in subjects:
        made.put(key_of(subject), ban())
    return made


@pytest.mark.parametrize(
    ("subject", "client", "banned"),
    [
        ("192.0.2.0/24", "192.0.2.200", True),
        ("192.0.2.0/24", "192.0.3.1", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("192.0.2.0/24", "::ffff:192.0.2.9", True),
        ("2001:db8:1:2::/64", "2001:db8:1:2::99", True),
        ("2001:db8:1:2::/64", "2001:db8:1:3::99", False),
        ("10.0.0.0/8", "10.250.1.1", True),
        ("account:192.0.2.7", "192.0.2.7", False),
        ("2001:db8::/32", "192.0.2.7", False),
    ],
)
def test_who_is_banned(subject: str, client: str, banned: bool) -> None:
    assert (index(subject).client(client, NOW) is not None) is banned


def test_a_ban_ends_by_itself_and_the_narrowest_that_holds_is_told() -> None:
    made = index("192.0.2.0/24")
    short = Ban(NOW, NOW + HOUR, BanCause.ADMINISTRATOR)
    made.put(client_key("192.0.2.7"), short)
    assert made.client("192.0.2.7", NOW) == short
    assert made.client("192.0.2.7", NOW + HOUR) == ban()
    assert made.client("192.0.2.7", NOW + 4 * HOUR) is None


def test_no_entry_lasts_for_ever_whatever_it_says() -> None:
    made = BanIndex()
    made.put(client_key("192.0.2.7"), Ban(NOW, 1 << 62, BanCause.ADMINISTRATOR))
    assert made.client("192.0.2.7", NOW + LONGEST_MS - 1) is not None
    assert made.client("192.0.2.7", NOW + LONGEST_MS) is None


def test_names_are_their_own_kind_without_regard_to_case() -> None:
    made = index("account:Alice", "sender:Spam@ube.example")
    assert made.named(account_key("aLICE"), NOW) is not None
    assert made.named(sender_key("spam@UBE.example"), NOW) is not None
    assert made.named(account_key("bob"), NOW) is None
    assert len(made) == 2
    made.discard(account_key("ALICE"))
    made.discard(client_key("192.0.2.0/24"))
    assert len(made) == 1
    made.discard(sender_key("spam@ube.example"))
    assert not made
    made.put(client_key("192.0.2.0/24"), ban())
    assert made
    made.discard(client_key("192.0.2.0/24"))
    assert not made


@pytest.mark.parametrize("subject", ["", "x", "0.0.0.0/0", "10.0.0.0/7", "::/0", "2001::/15", "::ffff:192.0.2.1"])
def test_what_cannot_be_banned(subject: str) -> None:
    with pytest.raises(BanError):
        key_of(subject)


def test_a_key_of_a_later_version_is_passed_over() -> None:
    made = BanIndex()
    made.put("client:not-a-network", ban())
    made.discard("client:not-a-network")
    assert len(made) == 0
    assert not made


@given(st.text(min_size=1, max_size=600))
def test_keys_fit_the_shared_memory_and_come_back(name: str) -> None:
    key = account_key(name)
    assert len(key) <= 512
    assert key_of(subject_of(key)) == key_of(subject_of(key_of(subject_of(key))))


@given(st.ip_addresses(v=4))
def test_every_network_holds_its_address(address: object) -> None:
    made = index(f"{address}/24")
    assert made.client(str(address), NOW) is not None


@pytest.mark.parametrize(
    ("unknown", "named", "is_harvest"),
    [(49, 49, False), (50, 50, True), (50, 100, True), (50, 101, False), (60, 200, False), (100, 200, True)],
)
def test_a_harvest_needs_a_number_and_a_share(unknown: int, named: int, is_harvest: bool) -> None:
    assert evaluate(HarvestPolicy(50, 50), Count(unknown, named)) is is_harvest


def test_the_window_slides() -> None:
    watch = HarvestWatch(100.0)
    for second in range(0, 100, 10):
        count = watch.see("192.0.2.0/24", unknown=True, at_ms=NOW + second * 1000)
    assert count == Count(10, 10)
    assert watch.see("192.0.2.0/24", unknown=False, at_ms=NOW + 100_000) == Count(9, 10)
    assert watch.see("192.0.2.0/24", unknown=True, at_ms=NOW + 1_000_000) == Count(1, 1)


def test_memory_is_bounded_and_who_goes_on_stays() -> None:
    watch = HarvestWatch(100.0, most=10)
    for number in range(1000):
        watch.see("busy", unknown=True, at_ms=NOW)
        watch.see(str(number), unknown=True, at_ms=NOW)
    assert len(watch) == 10
    assert watch.see("busy", unknown=True, at_ms=NOW) == Count(1001, 1001)


def test_after_a_ban_counting_begins_anew() -> None:
    watch = HarvestWatch(100.0)
    watch.see("a", unknown=True, at_ms=NOW)
    watch.forget("a")
    assert watch.see("a", unknown=True, at_ms=NOW) == Count(1, 1)
