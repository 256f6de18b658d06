"""What the sender asked to be told (RFC 3461): which notifications are made, what they quote, what is passed on."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from typing import cast

import msgspec
import pytest

from gatepost.core.aftermath import Aftermath, Attempt, Scene, aftermath
from gatepost.core.configuration import RetryPlan
from gatepost.core.dsn import MAX_RETURNED_MESSAGE, Fate, failure_notification
from gatepost.core.dsn_wishes import passed_on, wants_failure, wants_success
from gatepost.core.envelope import Envelope, Recipient, Trust
from gatepost.core.ports.transport import RemoteReply
from gatepost.core.records import Item
from gatepost.core.reply import Reply
from gatepost.core.topics import Topics

MESSAGE = b"Subject: hello\r\n\r\nthe body\r\n"
SCENE = Scene(Topics("p."), "mx.a.example", "p.relay", 2_000_000)
FAILED = RemoteReply(550, "5.1.1", "no such user", "mx.b.example")
SENT = RemoteReply(250, "2.6.0", "queued", "mx.b.example")
REPORTING = msgspec.structs.replace(SENT, dsn=True)


def envelope(*recipients: Recipient, **more: object) -> Envelope:
    facts = {
        "v": 1,
        "id": "01HF7YAT3VMNYNQV3RQQ4BXDW8",
        "reverse_path": "sender@a.example",
        "recipients": recipients,
        "received_ms": 1_000_000,
        "size": len(MESSAGE),
        "trust": Trust.AUTHENTICATED,
        **more,
    }
    return Envelope(**facts)  # type: ignore[arg-type]


def to(address: str, notify: str = "", orcpt: str = "") -> Recipient:
    return Recipient(address, f"01HF7YAT3V{address[0].upper()}NYNQV3RQQ4BXDW8", notify=notify, orcpt=orcpt)


def after(reply: RemoteReply, own: Envelope, *, delivers: bool = False, message: bytes = MESSAGE) -> Aftermath:
    attempts = [Attempt(recipient, reply) for recipient in own.recipients]
    scene = msgspec.structs.replace(SCENE, delivers=delivers)
    return aftermath(Item(own, message, None), attempts, RetryPlan(), message, scene, None, None)


def report(found: Aftermath) -> EmailMessage:
    (entry,) = found.entries
    assert entry.topic == "p.accepted"
    return cast(EmailMessage, email.message_from_bytes(entry.value or b"", policy=email.policy.default))


def status(message: EmailMessage) -> str:
    (part,) = (part for part in message.walk() if part.get_content_type() == "message/delivery-status")
    return part.as_string()


@pytest.mark.parametrize(
    ("notify", "failure", "success"),
    [
        ("", True, False),
        ("NEVER", False, False),
        ("never", False, False),
        ("SUCCESS", False, True),
        ("success,failure", True, True),
        ("FAILURE", True, False),
        ("DELAY", False, False),
        ("SUCCESS,DELAY", False, True),
    ],
)
def test_who_is_told(notify: str, failure: bool, success: bool) -> None:
    """RFC 3461 4.1 as a table: for failed, relayed and delivered copies."""
    own = envelope(to("x@b.example", notify))
    assert (wants_failure(own.recipients[0]), wants_success(own, own.recipients[0])) == (failure, success)
    assert bool(after(FAILED, own).entries) is failure
    for delivers, action in ((False, "relayed"), (True, "delivered")):
        found = after(SENT, own, delivers=delivers)
        assert bool(found.entries) is success
        assert found.success == (action if success else "")
        if success:
            text = status(report(found))
            assert f"Action: {action}" in text
            assert "Status: 2.6.0" in text


def test_a_next_hop_that_reports_itself_is_left_to_it() -> None:
    """RFC 3461 5.2.1: no "relayed" then, or the sender hears twice."""
    assert after(REPORTING, envelope(to("x@b.example", "SUCCESS"))).entries == ()


def test_nobody_is_told_of_the_null_sender_and_no_stranger_of_success() -> None:
    wanting = to("x@b.example", "SUCCESS,FAILURE")
    assert after(SENT, envelope(wanting, reverse_path="")).entries == ()
    assert after(FAILED, envelope(wanting, reverse_path="")).entries == ()
    assert after(SENT, envelope(wanting, trust=Trust.UNVERIFIED)).entries == ()


def test_only_those_who_want_it_are_in_a_report() -> None:
    found = after(FAILED, envelope(to("x@b.example", "NEVER"), to("y@b.example", "FAILURE"), to("z@b.example")))
    text = status(report(found))
    assert [line for line in text.splitlines() if line.startswith("Final-Recipient")] == [
        "Final-Recipient: rfc822; y@b.example",
        "Final-Recipient: rfc822; z@b.example",
    ]
    assert len(found.failed) == 3, "it failed for all, whoever is told"


def test_envid_and_orcpt_are_quoted_decoded() -> None:
    own = envelope(to("x@b.example", "FAILURE", "rfc822;Bob+2Btag@Old.example"), envid="QQ+2B314+3D1")
    text = status(report(after(FAILED, own)))
    assert "Original-Envelope-Id: QQ+314=1" in text
    assert "Original-Recipient: rfc822; Bob+tag@Old.example" in text


def test_an_envelope_that_did_not_come_through_our_checks_cannot_add_a_line() -> None:
    own = envelope(to("x@b.example", "FAILURE", "rfc822;a+0D+0AAction:+20delivered"), envid="a+0D+0Ab: c")
    text = status(report(after(FAILED, own)))
    assert "Action: delivered" not in text
    assert "\nb: c" not in text


@pytest.mark.parametrize(
    ("ret", "size", "kind"),
    [
        ("", 10, "text/rfc822-headers"),
        ("HDRS", 10, "text/rfc822-headers"),
        ("FULL", 10, "message/rfc822"),
        ("full", MAX_RETURNED_MESSAGE - len(MESSAGE), "message/rfc822"),
        ("FULL", MAX_RETURNED_MESSAGE, "text/rfc822-headers"),
    ],
)
def test_what_is_returned(ret: str, size: int, kind: str) -> None:
    message = MESSAGE + b"x" * size
    own = envelope(to("x@b.example"), ret=ret, size=len(message))
    returned = list(report(after(FAILED, own, message=message)).iter_parts())[2]
    assert returned.get_content_type() == kind
    assert b"Subject: hello" in returned.as_bytes()
    assert (b"the body" in returned.as_bytes()) is (kind == "message/rfc822")


def test_the_start_of_a_message_is_never_taken_for_all_of_it() -> None:
    own = envelope(to("x@b.example"), ret="FULL", size=1_000_000)
    found = failure_notification(own, [Fate(own.recipients[0], Reply(550, "5.0.0", "x"))], MESSAGE, "h", 0)
    assert found is not None
    assert b"the body" not in found.message


def test_reports_of_success_return_the_header_only() -> None:
    """RFC 3461 4.3: RET is about failures."""
    found = after(SENT, envelope(to("x@b.example", "SUCCESS"), ret="FULL"))
    assert b"the body" not in (found.entries[0].value or b"")


@pytest.mark.parametrize(
    ("notify", "alone", "of_several"),
    [
        ("", "", ""),
        ("NEVER", "NEVER", "NEVER"),
        ("SUCCESS", "SUCCESS", "NEVER"),
        ("Failure,Success", "Failure,Success", "Failure"),
        ("DELAY", "DELAY", "DELAY"),
    ],
)
def test_wishes_of_an_alias(notify: str, alone: str, of_several: str) -> None:
    named, copy = to("list@a.example", notify, "rfc822;list@a.example"), to("x@b.example")
    assert passed_on(named, copy, alone=True).notify == alone
    assert passed_on(named, copy, alone=False).notify == of_several
    assert passed_on(named, copy, alone=False).address == "x@b.example"
    assert passed_on(named, copy, alone=True).orcpt == "rfc822;list@a.example"
