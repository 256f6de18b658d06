"""Mail that is stopped: how a record lies in `quarantine` or `held`, with the reason, for a person to look at."""

from __future__ import annotations

from typing import Final

import msgspec

from gatepost.core.envelope import ENVELOPE_HEADER, ContentRef, Envelope
from gatepost.core.ports.log import Entry, Headers
from gatepost.core.records import work_entry

REASON_HEADER: Final = "reason"
MAX_REASON: Final = 500  # bytes: what a listing can show

NOT_VERIFIED: Final = "a notification to a return path that was not verified"


class _Referring(msgspec.Struct, frozen=True):
    """As much of an envelope of any version as says whose body lies where."""

    id: str = ""
    content: ContentRef | None = None


def with_reason(headers: Headers, reason: str) -> Headers:
    """Return the headers with this reason in place of any other."""
    kept = tuple(header for header in headers if header[0] != REASON_HEADER)
    return (*kept, (REASON_HEADER, reason.encode("utf-8", "replace")[:MAX_REASON]))


def stopped_notification(
    topic: str, envelope: Envelope, message: bytes, traceparent: bytes | None, reason: str = NOT_VERIFIED
) -> Entry:
    """Return the record of a notification that is not sent."""
    entry = work_entry(topic, envelope, message, traceparent)
    return msgspec.structs.replace(entry, headers=with_reason(entry.headers, reason))


def reference_in(headers: Headers) -> tuple[str, ContentRef | None]:
    """Return the message's id and where its body lies, if that is elsewhere; nothing of an unreadable envelope.

    An envelope of a version that we do not know is read as far as this goes: its body must not be lost meanwhile.
    """
    for name, value in headers:
        if name == ENVELOPE_HEADER:
            try:
                found = msgspec.json.decode(value, type=_Referring)
            except msgspec.MsgspecError:
                break
            return found.id, found.content
    return "", None


def with_reference(headers: Headers, reference: ContentRef) -> Headers:
    """Return the headers with another place for the body; all else in the envelope stays as it is."""
    changed: list[tuple[str, bytes]] = []
    for name, value in headers:
        if name == ENVELOPE_HEADER:
            fields = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
            fields["content"] = msgspec.Raw(msgspec.json.encode(reference))
            value = msgspec.json.encode(fields)
        changed.append((name, value))
    return tuple(changed)
