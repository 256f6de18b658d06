"""Check `recipient`: is a recipient of a served domain taken (RFC 5321 3.3; RFC 3463 3.2, 3.3 for the codes)?"""

from __future__ import annotations

from typing import Final

from gatepost.core.manifest.mail_domain import UnknownAction
from gatepost.core.recipients import Found, Kind
from gatepost.core.reply import Reply
from gatepost.core.smtp_replies import RECIPIENT_TOO_LARGE

CHECK: Final = "recipient"

UNKNOWN: Final[Reply] = Reply(550, "5.1.1", "user unknown", CHECK)
DISABLED: Final = Reply(550, "5.2.1", "mailbox disabled", CHECK)
OVER_QUOTA: Final = Reply(452, "4.2.2", "mailbox full, please try again later", "quota")
UNAVAILABLE: Final = Reply(451, "4.4.3", "the recipient cannot be looked up, please try again later", "directory")
SOURCE_ROUTE: Final = Reply(550, "5.1.3", "source routes are not followed (RFC 5321 C)", "source-route")


def evaluate(found: Found, declared_size: int) -> Reply | None:
    """Return the refusal, or None: the recipient is taken. `declared_size` is MAIL's SIZE, 0 without one."""
    config = found.config
    match found.kind:
        case Kind.NOT_SERVED:
            raise ValueError("a recipient that is not served is relay_right's to judge")
        case Kind.UNKNOWN:  # DeliverTo, Discard and Bounce take it
            if config is None or config.unknown is UnknownAction.REJECT:
                return UNKNOWN
        case Kind.DISABLED:
            return DISABLED
        case Kind.ENTRY:
            if found.entry is not None and found.entry.over_quota:
                return OVER_QUOTA
        case Kind.LIST | Kind.LISTED:
            pass
    if config is not None and 0 < config.max_message_size < declared_size:
        return RECIPIENT_TOO_LARGE
    return None
