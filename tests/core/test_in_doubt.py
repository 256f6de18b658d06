"""By what a retry is recognised, and which messages may be (core/in_doubt)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.in_doubt import (
    LIFETIME_MS,
    Doubt,
    DoubtIndex,
    DoubtState,
    client_network,
    fingerprint,
    is_distinct,
)

TRY: dict[str, Any] = {
    "address": "192.0.2.1",
    "login": "",
    "reverse_path": "a@x.example",
    "recipients": ["b@y.example", "c@y.example"],
    "size": 10,
    "sha256": "00" * 32,
}


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"recipients": ["c@y.example", "b@y.example"]}, True),
        ({"address": "192.0.2.254"}, True),
        ({"address": "::ffff:192.0.2.7"}, True),
        ({"address": "192.0.3.1"}, False),
        ({"address": "2001:db8::1"}, False),
        ({"login": "alice"}, False),
        ({"reverse_path": ""}, False),
        ({"recipients": ["b@y.example"]}, False),
        ({"recipients": ["b@y.example", "c@y.example", "d@y.example"]}, False),
        ({"size": 11}, False),
        ({"sha256": "01" * 32}, False),
    ],
)
def test_what_belongs_to_a_try(changed: dict[str, Any], same: bool) -> None:
    assert (fingerprint(**{**TRY, **changed}) == fingerprint(**TRY)) is same


def test_the_login_counts_instead_of_the_network() -> None:
    one = fingerprint(**{**TRY, "login": "alice"})
    assert fingerprint(**{**TRY, "login": "alice", "address": "2001:db8::1"}) == one
    assert fingerprint(**{**TRY, "login": "bob"}) != one


def test_a_login_is_no_network() -> None:
    """Nobody can choose a name that makes his mail the retry of another's."""
    assert fingerprint(**{**TRY, "login": client_network(TRY["address"])}) != fingerprint(**TRY)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_networks(address: str, network: str) -> None:
    assert client_network(address) == network


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(text, st.lists(text, max_size=4), text, st.lists(text, max_size=4))
def test_no_two_envelopes_share_a_fingerprint(
    sender: str, recipients: list[str], other_sender: str, other_recipients: list[str]
) -> None:
    """However their parts are cut: a part cannot run over into the next."""
    one = fingerprint("192.0.2.1", "", sender, recipients, 1, "00")
    other = fingerprint("192.0.2.1", "", other_sender, other_recipients, 1, "00")
    alike = sender == other_sender and sorted(recipients) == sorted(other_recipients)
    assert (one == other) is alike


def test_addresses_that_are_no_unicode() -> None:
    """An address with bytes that are no UTF-8 has a fingerprint as well."""
    assert len(fingerprint(**{**TRY, "reverse_path": "\udcff@x.example"})) == 64


@pytest.mark.parametrize(
    ("start", "distinct"),
    [
        (b"Date: Sun, 22 Nov 2026 04:00:00 +0000\r\n\r\nx", True),
        (b"MESSAGE-ID: <a@b>\r\n\r\nx", True),
        (b"Received: from a by b; now\r\nSubject: x\r\n\r\nx", True),
        (b"Subject: x\r\n\r\nDate: in the body\r\n", False),
        (b"Date:\r\nMessage-ID: \r\n\r\nx", False),
        (b"", False),
        (b"\r\nDate: behind the header\r\n", False),
        (b"X-Date: now\r\n\r\n", False),
    ],
)
def test_only_what_cannot_be_meant_twice_is_matched(start: bytes, distinct: bool) -> None:
    assert is_distinct(start) is distinct


def test_index() -> None:
    index = DoubtIndex()
    for number, print_ in enumerate("aab"):
        index.put(f"id{number}", Doubt(print_, number))
    assert [name for name, _ in index.matching("a", 5)] == ["id0", "id1"]
    assert [name for name, _ in index.matching("a", LIFETIME_MS)] == ["id1"], "the first has expired"
    index.put("id0", Doubt("b", 0, DoubtState.WRITTEN))
    assert [name for name, _ in index.matching("a", 5)] == ["id1"]
    assert [doubt.state.value for _, doubt in index.matching("b", 5)] == ["Written", "Unknown"]
    assert index.discard("id0") == Doubt("b", 0, DoubtState.WRITTEN)
    assert index.discard("id0") is None
    assert "id0" not in index
    assert len(index) == 2
    assert index.discard("id1") is not None
    assert index.discard("id2") is not None
    assert not len(index)
    assert list(index.matching("b", 5)) == []


def test_the_shape_in_the_log_is_fixed() -> None:
    """docs/compatibility.md: another version reads it."""
    assert msgspec.json.encode(Doubt("ab", 5)) == b'{"fingerprint":"ab","since_ms":5}'
    assert msgspec.json.decode(b'{"fingerprint":"ab","since_ms":5,"state":"Written","new":1}', type=Doubt) == Doubt(
        "ab", 5, DoubtState.WRITTEN
    )
