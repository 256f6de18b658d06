"""Delivery status notifications: RFC 3464 reports in RFC 6522 multiparts, in UTF-8 form by RFC 6533.

A notification has the null sender and is never answered (RFC 5321 6.1). Its id is derived from the failed
copy's, so that a step that is repeated writes the same one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from gatepost.core.envelope import VERSION, BodyType, Envelope, Recipient, Trust
from gatepost.core.ids import derive_id
from gatepost.core.message import date_time, header_end
from gatepost.core.reply import Reply

MAX_RETURNED_HEADER: Final = 64 * 1024  # a header larger than this is cut; the report stays inline
ACTION: Final = "dsn-failed"


class Failure(msgspec.Struct, frozen=True):
    """One recipient that failed. `reply` is what was answered, `remote` who answered (empty: we ourselves)."""

    recipient: Recipient
    reply: Reply
    remote: str = ""


class Notification(msgspec.Struct, frozen=True):
    """A DSN ready for the log: its envelope and its bytes."""

    envelope: Envelope
    message: bytes


def failure_notification(
    envelope: Envelope, failures: Sequence[Failure], header: bytes, hostname: str, now_ms: int
) -> Notification | None:
    """Return the DSN that tells the sender of these failures; None for a message with the null sender.

    `header` is the failed message (or its start); its header goes into the report, its body does not.
    """
    if envelope.is_bounce:
        return None
    first = failures[0].recipient
    own_id = derive_id(first.id or envelope.id, first.address, ACTION)
    utf8 = not all(
        text.isascii() for text in (envelope.reverse_path, *(failure.recipient.address for failure in failures))
    )
    message = _report(envelope, failures, header, hostname, now_ms, own_id, utf8)
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
    failures: Sequence[Failure],
    header: bytes,
    hostname: str,
    now_ms: int,
    own_id: str,
    utf8: bool,
) -> bytes:
    boundary = f"=_{own_id}"
    kind = "global-delivery-status" if utf8 else "delivery-status"  # RFC 6533 3
    headers_kind = "global-headers" if utf8 else "rfc822-headers"  # RFC 6522 4
    returned = header[: min(header_end(header), MAX_RETURNED_HEADER)]
    eight_bit = utf8 or not returned.isascii()
    encoding = "Content-Transfer-Encoding: 8bit\r\n" if eight_bit else ""
    top = (
        f"Date: {date_time(now_ms)}\r\n"
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>\r\n"
        f"To: <{envelope.reverse_path}>\r\n"
        "Subject: Undelivered mail returned to sender\r\n"
        f"Message-ID: <{own_id}@{hostname}>\r\n"
        "Auto-Submitted: auto-replied\r\n"  # RFC 3834 5
        "MIME-Version: 1.0\r\n"
        f'Content-Type: multipart/report; report-type={kind}; boundary="{boundary}"\r\n'
        f"{encoding}\r\n"
    )
    parts = (
        f"--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n{encoding}\r\n"
        f"{_explanation(envelope, failures, hostname)}\r\n"
        f"--{boundary}\r\nContent-Type: message/{kind}\r\n{encoding}\r\n"
        f"{_status(envelope, failures, hostname, utf8)}\r\n"
        f"--{boundary}\r\nContent-Type: message/{headers_kind}\r\n{encoding}\r\n"
    )
    return (top + parts).encode("utf-8", "surrogateescape") + returned + f"\r\n--{boundary}--\r\n".encode("ascii")


def _explanation(envelope: Envelope, failures: Sequence[Failure], hostname: str) -> str:
    lines = [
        f"This is the mail gateway {hostname}.",
        "",
        "Your message could not be delivered to:",
        "",
    ]
    for failure in failures:
        who = f"{failure.remote} said: " if failure.remote else ""
        code = f"{failure.reply.code} {failure.reply.enhanced}".rstrip()
        lines += [f"  <{failure.recipient.address}>", f"    {who}{code} {_one_line(failure.reply.text)}", ""]
    lines += [f"Message id at this gateway: {envelope.id}", ""]
    return "\r\n".join(lines)


def _status(envelope: Envelope, failures: Sequence[Failure], hostname: str, utf8: bool) -> str:
    lines = [f"Reporting-MTA: dns; {hostname}"]  # RFC 3464 2.2.2
    if envelope.envid:
        lines.insert(0, f"Original-Envelope-Id: {envelope.envid}")
    lines.append(f"Arrival-Date: {date_time(envelope.received_ms)}")
    for failure in failures:
        address, original = failure.recipient.address, failure.recipient.original
        lines.append("")
        if failure.recipient.orcpt:
            lines.append(f"Original-Recipient: {failure.recipient.orcpt}")
        elif original and original != address:
            lines.append(f"Original-Recipient: {_typed(original)}")
        lines += [
            f"Final-Recipient: {_typed(address)}",
            "Action: failed",
            f"Status: {failure.reply.enhanced or '5.0.0'}",
        ]
        if failure.remote:
            lines.append(f"Remote-MTA: dns; {failure.remote}")
            code = f"{failure.reply.code} {failure.reply.enhanced}".rstrip()
            lines.append(f"Diagnostic-Code: smtp; {code} {_one_line(failure.reply.text)}")
    lines.append("")
    return "\r\n".join(lines)


def _typed(address: str) -> str:
    """The address with its type: rfc822, or utf-8 (RFC 6533 3)."""
    return f"rfc822; {address}" if address.isascii() else f"utf-8; {address}"


def _one_line(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable.encode("ascii", "replace").decode("ascii")[:500]
