"""Recipients whose copies a policy has put into quarantine: they leave the message before it is routed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from gatepost.core import event_kinds
from gatepost.core.envelope import ENVELOPE_HEADER, Envelope, Recipient, encode_envelope
from gatepost.core.ids import derive_id
from gatepost.core.ports.events import Event, Events
from gatepost.core.ports.log import Record
from gatepost.core.records import Item
from gatepost.telemetry import metrics

ACTION: Final = "quarantine"


class Stopped(msgspec.Struct, frozen=True):
    """A record that is to be put into quarantine, for the reason that its first recipient has."""

    record: Record
    envelope: Envelope
    reason: str


def split(record: Record, item: Item) -> tuple[Item | None, Stopped | None]:
    """Return what is routed and what is stopped; either is None when there is nothing of it.

    With all recipients stopped the record stays as it is; a part gets an id of its own (parent and action, G3).
    """
    envelope = item.envelope
    stopped = tuple(one for one in envelope.recipients if envelope.quarantine or one.quarantine)
    if not stopped:
        return item, None
    reason = envelope.quarantine or stopped[0].quarantine
    if len(stopped) == len(envelope.recipients):
        return None, Stopped(record, envelope, reason)
    own = msgspec.structs.replace(
        envelope, id=derive_id(envelope.id, "", ACTION), parent=envelope.id, recipients=stopped
    )
    routed = tuple(one for one in envelope.recipients if not one.quarantine)
    rest = msgspec.structs.replace(item, envelope=msgspec.structs.replace(envelope, recipients=routed))
    return rest, Stopped(_with_envelope(record, own), own, reason)


def _with_envelope(record: Record, envelope: Envelope) -> Record:
    headers = tuple(
        (name, encode_envelope(envelope) if name == ENVELOPE_HEADER else value) for name, value in record.headers
    )
    return msgspec.structs.replace(record, headers=headers)


def tell(stopped: Stopped, events: Events, now_ms: Callable[[], int]) -> None:
    """Each recipient's copy is in quarantine, durably."""
    envelope = stopped.envelope
    metrics.ROUTED.add("quarantined", by=len(envelope.recipients))
    for recipient in envelope.recipients:
        events.emit(
            Event(
                envelope.id,
                event_kinds.QUARANTINED,
                now_ms(),
                parent=envelope.parent,
                service="router",
                recipient=recipient.address,
                facts={"reason": _reason(envelope, recipient)},
            )
        )


def _reason(envelope: Envelope, recipient: Recipient) -> str:
    return envelope.quarantine or recipient.quarantine
