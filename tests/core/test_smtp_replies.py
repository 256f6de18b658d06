"""The table of replies: every one well-formed, and every refusal with the check that gave it."""

from __future__ import annotations

import re

import pytest

from gatepost.core import relay_right, smtp_replies
from gatepost.core.checks import content, recipient
from gatepost.core.reply import MAX_REPLY_LINE, Reply

SOURCES = (smtp_replies, recipient, relay_right, content)
REPLIES = {
    f"{module.__name__}.{name}": value
    for module in SOURCES
    for name, value in vars(module).items()
    if isinstance(value, Reply)
}
MAX_PATH = 256


@pytest.mark.parametrize("name", REPLIES)
def test_reply(name: str) -> None:
    """RFC 2034 4: the enhanced code's class is the code's; RFC 3463 2: its form; the line fits with an address."""
    reply = REPLIES[name]
    assert re.fullmatch(r"[245]\.[0-7]\.[0-9]{1,3}", reply.enhanced)
    assert reply.enhanced[0] == str(reply.code)[0]
    assert bool(reply.check) is not reply.positive
    quoted = smtp_replies.quoting(reply, "x" * MAX_PATH).encode("I" * 26)
    assert len(quoted) <= MAX_REPLY_LINE
    assert quoted.endswith(b"\r\n" if reply.positive else f"({reply.check}) {'I' * 26}\r\n".encode())


def test_there_are_some() -> None:
    assert len(REPLIES) > 50
