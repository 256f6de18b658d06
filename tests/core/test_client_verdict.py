"""What several verdicts amount to, and how a tag and a reason are written."""

from __future__ import annotations

import pytest

from gatepost.core.checks.verdict import NOTHING, Verdict, decide, is_role_address, tag_field
from gatepost.core.manifest.actions import Action
from gatepost.core.reply import Reply

# verdicts in order -> the action that acts, and the tags
TABLE = [
    ([], Action.ACCEPT, []),
    ([Action.ACCEPT, Action.RELAY], Action.ACCEPT, []),
    ([Action.TAG], Action.ACCEPT, [0]),
    ([Action.TAG, Action.TAG], Action.ACCEPT, [0, 1]),
    ([Action.QUARANTINE, Action.TAG], Action.QUARANTINE, [1]),
    ([Action.QUARANTINE, Action.DISCARD], Action.DISCARD, []),
    ([Action.DISCARD, Action.DEFER], Action.DEFER, []),
    ([Action.DEFER, Action.REJECT, Action.TAG], Action.REJECT, [2]),
    ([Action.RELAY, Action.REJECT], Action.REJECT, []),
]


@pytest.mark.parametrize(("actions", "action", "tags"), TABLE)
def test_the_strongest_verdict_acts(actions: list[Action], action: Action, tags: list[int]) -> None:
    verdicts = [Verdict(f"check-{number}", one) for number, one in enumerate(actions)]
    decision = decide(verdicts)
    assert decision.action is action
    assert [tag.check for tag in decision.tags] == [f"check-{number}" for number in tags]
    if action is Action.ACCEPT and not tags:
        assert decision.strongest is None


def test_of_equal_verdicts_the_first_acts() -> None:
    first, second = Verdict("one", Action.REJECT), Verdict("two", Action.REJECT)
    assert decide([first, second]).strongest is first
    assert decide(()) is NOTHING


def test_a_refusal_always_has_a_reply() -> None:
    assert Verdict("mine", Action.DEFER).answer.encode() == (
        b"450 4.7.1 not taken at the moment, please try again later (mine)\r\n"
    )
    assert Verdict("mine", Action.REJECT).answer.code == 550
    own = Reply(551, "5.7.1", "Relay denied", "access")
    assert Verdict("access", Action.REJECT, own).answer is own


def test_a_tag_is_one_header_line_whatever_it_quotes() -> None:
    assert tag_field(Verdict("reverse-dns", Action.TAG, reason="no name").told) == (
        "X-Gatepost-Tag: reverse-dns; no name\r\n"
    )
    assert tag_field(Verdict("plain", Action.TAG).told) == "X-Gatepost-Tag: plain\r\n"
    field = tag_field(Verdict("helo", Action.TAG, reason="a\r\nBcc: x\0é" + "y" * 1000).told)
    assert field.count("\r\n") == 1
    assert field.endswith("\r\n")
    assert field.isascii()
    assert len(field) < 300


@pytest.mark.parametrize("local", ["postmaster", "Abuse", "HOSTMASTER"])
def test_role_addresses(local: str) -> None:
    assert is_role_address(local)
    assert not is_role_address(f"{local}s")
