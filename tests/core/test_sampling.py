"""Which messages' events are written: the same ones in every process, whole stories only."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gatepost.core import event_kinds
from gatepost.core.ids import derive_id, new_id
from gatepost.core.sampling import in_sample, is_written

# A message every 7 ms for 70 s.
MESSAGES = [new_id(1_790_000_000_000 + 7 * number, number.to_bytes(10, "big")) for number in range(10_000)]


@pytest.mark.parametrize(
    ("share", "low", "high"), [(0.0, 0, 0), (0.01, 60, 140), (0.5, 4700, 5300), (1.0, 10_000, 10_000)]
)
def test_the_share_of_messages_is_the_one_asked_for(share: float, low: int, high: int) -> None:
    assert low <= sum(in_sample(message, share) for message in MESSAGES) <= high


def test_a_larger_share_contains_a_smaller_one() -> None:
    small = {message for message in MESSAGES if in_sample(message, 0.1)}
    large = {message for message in MESSAGES if in_sample(message, 0.3)}
    assert small < large


def test_copies_and_notifications_are_in_it_with_their_message() -> None:
    for message in MESSAGES[:500]:
        copy = derive_id(message, "bob@example.test", "mailbox")
        notification = derive_id(copy, "bob@example.test", "dsn")
        assert in_sample(copy, 0.5) == in_sample(notification, 0.5) == in_sample(message, 0.5)


def test_another_process_decides_alike() -> None:
    program = (
        "import sys; from gatepost.core.sampling import in_sample as i; print(*(i(m, 0.5) for m in sys.argv[1:]))"
    )
    words = [sys.executable, "-c", program, *MESSAGES[:50]]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [str(in_sample(message, 0.5)) for message in MESSAGES[:50]]


@pytest.mark.parametrize("kind", event_kinds.MEANING)
def test_only_what_went_well_can_be_left_out(kind: str) -> None:
    usual = {event_kinds.ACCEPTED, event_kinds.ROUTED, event_kinds.STORED, event_kinds.SENT}
    assert is_written(kind, MESSAGES[0], 0.0) == (kind not in usual)
    assert is_written(kind, MESSAGES[0], 1.0)


def test_any_text_can_be_asked_about() -> None:
    for text in ("", "short", "Gr\u00fc\u00dfe", "\udcff"):
        assert in_sample(text, 1.0)
        assert not in_sample(text, 0.0)
