"""Notifications of success on their way: from the router's copies to the stores and next hops (RFC 3461 5.2)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gatepost.core.address import parse_address
from gatepost.core.dsn_wishes import wants_success
from gatepost.core.envelope import Destination, Recipient, Trust
from gatepost.core.routing import GoesTo
from gatepost.router.copies import Copy
from gatepost.router.outputs import Wishes, expansion_entry, mailbox_envelope, relay_entries


def a_copy(address: str, original: str, **where: Any) -> Copy:
    return Copy(original, GoesTo(parse_address(address), Destination(**where)), address != original)


async def test_copies_carry_the_wishes(world: Any) -> None:
    envelope = msgspec.structs.replace(
        world.envelope("ann@a.example"),
        recipients=(
            Recipient("ann@a.example", notify="SUCCESS", orcpt="rfc822;ann@a.example"),
            Recipient("all@a.example", notify="SUCCESS,FAILURE"),
        ),
    )
    ann = a_copy("ann@a.example", "ann@a.example", store="local", mailbox="ann@a.example")
    members = [a_copy(f"{name}@b.example", "all@a.example", domain="b.example") for name in ("bob", "cid")]
    wishes = Wishes(envelope, [ann, *members])
    own = mailbox_envelope(envelope, ann, wishes)
    assert (own.recipients[0].notify, own.recipients[0].orcpt) == ("SUCCESS", "rfc822;ann@a.example")
    assert wants_success(own, own.recipients[0])
    entries = relay_entries(world.topics, envelope, b"", None, {"b.example": members}, wishes)
    for entry in entries:
        assert b'"notify":"FAILURE"' in dict(entry.headers)["envelope"]
    assert [recipient.address for recipient in wishes.expanded()] == ["all@a.example"]
    told = expansion_entry(world.topics, envelope, wishes, b"", "h", 0, None)
    assert told is not None
    assert b"Final-Recipient: rfc822; all@a.example\r\nAction: expanded" in (told.value or b"")
    stranger = msgspec.structs.replace(envelope, trust=Trust.UNVERIFIED)
    assert expansion_entry(world.topics, stranger, wishes, b"", "h", 0, None) is None


@pytest.mark.parametrize("notify", ["", "NEVER"])
async def test_nothing_is_told_of_an_expansion_unasked(world: Any, notify: str) -> None:
    envelope = msgspec.structs.replace(
        world.envelope("all@a.example"), recipients=(Recipient("all@a.example", notify=notify),)
    )
    copies = [a_copy(f"{name}@b.example", "all@a.example", domain="b.example") for name in ("bob", "cid")]
    wishes = Wishes(envelope, copies)
    assert expansion_entry(world.topics, envelope, wishes, b"", "h", 0, None) is None
