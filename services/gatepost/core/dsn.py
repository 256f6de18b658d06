"""Delivery status notifications: RFC 3464 reports in RFC 6522 multiparts, in UTF-8 form by RFC 6533.

What the sender asked for by NOTIFY, ENVID, ORCPT and RET is obeyed (RFC 3461 5.2, 6). A notification has the null
sender and is never answered (RFC 5321 6.1). Its id is derived from the copy's, so that a step that is repeated
writes the same one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import Enum
from typing import Final

import msgspec

from gatepost.core.dsn_wishes import wants_failure, wants_success
from gatepost.core.envelope import VERSION, BodyType, Envelope, Recipient, Trust
from gatepost.core.ids import derive_id
from gatepost.core.message import date_time, header_end
from gatepost.core.reply import Reply
from gatepost.core.xtext import XtextError, decode_xtext

MAX_RETURNED_HEADER: Final = 64 * 1024  # a header larger than this is cut; the report stays inline
# A whole message is returned (RET=FULL) up to this size: with the report's own parts it stays inline in the log.
MAX_RETURNED_MESSAGE: Final = 48 * 1024


class Action(Enum):
    """RFC 3464 2.3.3: what became of the recipients that one report is about."""

    FAILED = "failed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


_SUBJECT: Final = {
    Action.FAILED: "Undelivered mail returned to sender",
    Action.DELIVERED: "Your mail was delivered",
    Action.RELAYED: "Your mail was passed on",
    Action.EXPANDED: "Your mail was passed on to several mailboxes",
}
_SAID: Final = {
    Action.FAILED: ("Your message could not be delivered to:",),
    Action.DELIVERED: ("As you asked to be told: your message is in the mailbox of:",),
    Action.RELAYED: (
        "As you asked to be told: your message was passed on to the mail server of:",
        "That server does not report what becomes of it.",
    ),
    Action.EXPANDED: ("As you asked to be told: your message was passed on to the mailboxes behind:",),
}


class Fate(msgspec.Struct, frozen=True):
    """What became of one recipient. `reply` is what was answered, `remote` who answered (empty: we ourselves)."""

    recipient: Recipient
    reply: Reply
    remote: str = ""


class Notification(msgspec.Struct, frozen=True):
    """A DSN ready for the log: its envelope and its bytes."""

    envelope: Envelope
    message: bytes


def failure_notification(
    envelope: Envelope, failures: Sequence[Fate], header: bytes, hostname: str, now_ms: int
) -> Notification | None:
    """Return the DSN that tells the sender of these failures; None where nobody is to be told of any.

    `header` is the failed message or its start. Its header goes into the report, or all of it when the sender asked
    for that (RET=FULL, RFC 3461 4.3) and it is here and not large.
    """
    told = [failure for failure in failures if wants_failure(failure.recipient)]
    return _notification(envelope, Action.FAILED, told, header, hostname, now_ms)


def success_notification(
    envelope: Envelope, action: Action, fates: Sequence[Fate], header: bytes, hostname: str, now_ms: int
) -> Notification | None:
    """Return the DSN for the recipients whose success the sender wants to know; None when there are none.

    A return path that is not verified gets none: whoever forged it would have us send mail to a stranger.
    """
    told = [fate for fate in fates if wants_success(envelope, fate.recipient)]
    if not may_notify(envelope):
        return None
    return _notification(envelope, action, told, header, hostname, now_ms)


def _notification(
    envelope: Envelope, action: Action, failures: Sequence[Fate], header: bytes, hostname: str, now_ms: int
) -> Notification | None:
    if envelope.is_bounce or not failures:
        return None
    first = failures[0].recipient
    own_id = derive_id(first.id or envelope.id, first.address, f"dsn-{action.value}")
    utf8 = not all(
        text.isascii()
        for text in (
            envelope.reverse_path,
            *(failure.recipient.address for failure in failures),
            *(failure.recipient.orcpt for failure in failures),
        )
    )
    message = _report(envelope, action, failures, header, hostname, now_ms, own_id, utf8)
    eight_bit = not message.isascii()
    return Notification(
        Envelope(
            v=VERSION,
            id=own_id,
            reverse_path="",
            recipients=(Recipient(envelope.reverse_path),),
            received_ms=now_ms,
            size=len(message),
            sha256=hashlib.sha256(message).hexdigest(),
            trust=envelope.trust,
            body=BodyType.EIGHT_BIT_MIME if eight_bit else BodyType.SEVEN_BIT,
            smtputf8=utf8,
            parent=envelope.id,
        ),
        message,
    )


def may_notify(envelope: Envelope) -> bool:
    """Whether the return path is trusted enough for a DSN to be sent to it; else it is quarantined."""
    return envelope.trust is not Trust.UNVERIFIED


def _report(
    envelope: Envelope,
    action: Action,
    failures: Sequence[Fate],
    header: bytes,
    hostname: str,
    now_ms: int,
    own_id: str,
    utf8: bool,
) -> bytes:
    boundary = f"=_{own_id}"
    kind = "global-delivery-status" if utf8 else "delivery-status"  # RFC 6533 3
    returned_kind, returned = _returned(envelope, action, header, utf8)
    eight_bit = utf8 or not returned.isascii()
    encoding = "Content-Transfer-Encoding: 8bit\r\n" if eight_bit else ""
    top = (
        f"Date: {date_time(now_ms)}\r\n"
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>\r\n"
        f"To: <{envelope.reverse_path}>\r\n"
        f"Subject: {_SUBJECT[action]}\r\n"
        f"Message-ID: <{own_id}@{hostname}>\r\n"
        "Auto-Submitted: auto-replied\r\n"  # RFC 3834 5
        "MIME-Version: 1.0\r\n"
        f'Content-Type: multipart/report; report-type={kind}; boundary="{boundary}"\r\n'
        f"{encoding}\r\n"
    )
    parts = (
        f"--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n{encoding}\r\n"
        f"{_explanation(envelope, action, failures, hostname)}\r\n"
        f"--{boundary}\r\nContent-Type: message/{kind}\r\n{encoding}\r\n"
        f"{_status(envelope, action, failures, hostname)}\r\n"
        f"--{boundary}\r\nContent-Type: {returned_kind}\r\n{encoding}\r\n"
    )
    return (top + parts).encode("utf-8", "surrogateescape") + returned + f"\r\n--{boundary}--\r\n".encode("ascii")


def _returned(envelope: Envelope, action: Action, message: bytes, utf8: bool) -> tuple[str, bytes]:
    """The type and the bytes of the report's third part (RFC 6522 3)."""
    whole = action is Action.FAILED and envelope.ret.upper() == "FULL" and len(message) == envelope.size
    if whole and envelope.size <= MAX_RETURNED_MESSAGE:
        return "message/global" if utf8 else "message/rfc822", message
    kind = "message/global-headers" if utf8 else "text/rfc822-headers"  # RFC 6533 3, RFC 6522 4
    return kind, message[: min(header_end(message), MAX_RETURNED_HEADER)]


def _explanation(envelope: Envelope, action: Action, failures: Sequence[Fate], hostname: str) -> str:
    lines = [f"This is the mail gateway {hostname}.", "", *_SAID[action], ""]
    for failure in failures:
        who = f"{failure.remote} said: " if failure.remote else ""
        code = f"{failure.reply.code} {failure.reply.enhanced}".rstrip()
        lines.append(f"  <{failure.recipient.address}>")
        if action is Action.FAILED:
            lines.append(f"    {who}{code} {_one_line(failure.reply.text)}")
        lines.append("")
    lines += [f"Message id at this gateway: {envelope.id}", ""]
    return "\r\n".join(lines)


def _status(envelope: Envelope, action: Action, failures: Sequence[Fate], hostname: str) -> str:
    lines = [f"Reporting-MTA: dns; {hostname}"]  # RFC 3464 2.2.2
    if envelope.envid:
        lines.insert(0, f"Original-Envelope-Id: {_decoded(envelope.envid)}")
    lines.append(f"Arrival-Date: {date_time(envelope.received_ms)}")
    for failure in failures:
        address, original = failure.recipient.address, failure.recipient.original
        lines.append("")
        if failure.recipient.orcpt:
            lines.append(f"Original-Recipient: {_original(failure.recipient.orcpt)}")
        elif original and original != address:
            lines.append(f"Original-Recipient: {_typed(original)}")
        lines += [
            f"Final-Recipient: {_typed(address)}",
            f"Action: {action.value}",
            f"Status: {_enhanced(action, failure.reply)}",
        ]
        if failure.remote:
            lines.append(f"Remote-MTA: dns; {failure.remote}")
            code = f"{failure.reply.code} {failure.reply.enhanced}".rstrip()
            lines.append(f"Diagnostic-Code: smtp; {code} {_one_line(failure.reply.text)}")
    lines.append("")
    return "\r\n".join(lines)


def _enhanced(action: Action, reply: Reply) -> str:
    if action is Action.FAILED:
        return reply.enhanced or "5.0.0"
    return reply.enhanced if reply.enhanced.startswith("2.") else "2.0.0"


def _original(orcpt: str) -> str:
    """RFC 3461 6.3: the original recipient as it was before xtext; of type utf-8 as it came (RFC 6533 3)."""
    kind, _, address = orcpt.partition(";")
    return f"{kind}; {address if kind.lower() == 'utf-8' else _decoded(address)}"


def _decoded(text: str) -> str:
    """What xtext stands for (RFC 3461 6.3); text of an envelope that has none, as it is."""
    try:
        return decode_xtext(text)
    except XtextError:
        return text


def _typed(address: str) -> str:
    """The address with its type: rfc822, or utf-8 (RFC 6533 3)."""
    return f"rfc822; {address}" if address.isascii() else f"utf-8; {address}"


def _one_line(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable.encode("ascii", "replace").decode("ascii")[:500]
