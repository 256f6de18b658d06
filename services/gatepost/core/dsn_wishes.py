"""What a sender asked to be told about a recipient (RFC 3461 4.1), and how such wishes are passed on to copies."""

from __future__ import annotations

import msgspec

from gatepost.core.envelope import Envelope, Recipient


def wants_failure(recipient: Recipient) -> bool:
    """Whether a failure is to be reported: without NOTIFY, or when it has FAILURE (RFC 3461 4.1)."""
    return not recipient.notify or "FAILURE" in recipient.notify.upper().split(",")


def wants_success(envelope: Envelope, recipient: Recipient) -> bool:
    """Whether success is to be reported. The null sender never is (RFC 3461 4.5, RFC 5321 6.1)."""
    return bool(recipient.notify) and not envelope.is_bounce and "SUCCESS" in recipient.notify.upper().split(",")


def passed_on(recipient: Recipient, copy: Recipient, *, alone: bool) -> Recipient:
    """The copy with the wishes for the recipient that it comes from.

    `alone`: it is the only one (RFC 3461 5.2.7.2). Of several, none reports success, which would tell who is behind
    the address: that is told once for all of them, as "expanded" (5.2.7.3).
    """
    if not recipient.notify and not recipient.orcpt:
        return copy
    notify = recipient.notify
    if not alone and "SUCCESS" in notify.upper().split(","):
        rest = [word for word in notify.split(",") if word.upper() != "SUCCESS"]
        notify = ",".join(rest) or "NEVER"
    return msgspec.structs.replace(copy, notify=notify, orcpt=recipient.orcpt)
