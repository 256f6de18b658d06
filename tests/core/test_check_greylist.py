"""Greylisting as a table: who waits, how long, and what is remembered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.checks.greylist import (
    MOST_PROOFS,
    Grey,
    GreylistPolicy,
    Outcome,
    answer,
    evaluate,
    is_proven,
    key,
    prove,
)

NOW = 1_790_000_000_000
POLICY = GreylistPolicy(delay=300.0, keep=3600.0 * 840)
DAY = 86_400_000
NET = "192.0.2.0/24"


@pytest.mark.parametrize(
    ("known", "outcome", "wait", "written"),
    [
        (None, Outcome.NEW, 300, True),
        (Grey(NOW), Outcome.EARLY, 300, False),
        (Grey(NOW - 1), Outcome.EARLY, 300, False),
        (Grey(NOW - 299_001), Outcome.EARLY, 1, False),
        (Grey(NOW - 300_000), Outcome.PASSED, 0, True),
        (Grey(NOW - DAY), Outcome.PASSED, 0, True),
        (Grey(NOW + 90 * DAY), Outcome.EARLY, 300, False),  # a clock was set back
        (Grey(NOW - DAY, known=True), Outcome.KNOWN, 0, False),
        (Grey(NOW - 4 * DAY, known=True), Outcome.KNOWN, 0, True),
    ],
)
def test_who_waits(known: Grey | None, outcome: Outcome, wait: int, written: bool) -> None:
    judgement = evaluate(POLICY, known, NOW)
    assert (judgement.outcome, judgement.wait, judgement.remember is not None) == (outcome, wait, written)
    if written:
        assert judgement.until_ms > NOW + 840 * 3_600_000 - 1 or outcome is Outcome.NEW


def test_a_first_try_is_remembered_for_longer_than_servers_wait() -> None:
    judgement = evaluate(POLICY, None, NOW)
    assert judgement.until_ms == NOW + 300_000 + 2 * DAY


def test_the_reply_says_the_seconds() -> None:
    reply = answer(evaluate(POLICY, Grey(NOW - 100_000), NOW))
    assert reply.encode("ID") == (
        b"450 4.7.1 you have not written here before, please try again in 200 seconds (greylist) ID\r\n"
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("list-bounces-123@l.example", "list-bounces-4567@l.example", True),
        ("bounce+x=y.example@l.example", "bounce+z=q.example@l.example", True),
        ("A@L.example", "a@l.EXAMPLE", True),
        ("a@l1.example", "a@l2.example", False),
        ("a@l.example", "b@l.example", False),
        ("", "a@l.example", False),
    ],
)
def test_which_senders_are_one(one: str, other: str, same: bool) -> None:
    assert (key(NET, one, "bob@example.test") == key(NET, other, "bob@example.test")) is same


def test_network_and_recipient_count() -> None:
    mine = key(NET, "a@b.example", "bob@example.test")
    assert mine != key("198.51.100.0/24", "a@b.example", "bob@example.test")
    assert mine != key(NET, "a@b.example", "alice@example.test")


@given(st.text(max_size=400), st.text(max_size=400))
def test_a_key_is_short_whatever_the_addresses(sender: str, recipient: str) -> None:
    assert len(key(NET, sender, recipient)) == 32


def test_a_network_that_comes_back_often_is_known() -> None:
    known = None
    for _ in range(MOST_PROOFS):
        assert not is_proven(known)
        known, until_ms = prove(POLICY, known, NOW)
        assert until_ms == NOW + 840 * 3_600_000
    assert is_proven(known)
