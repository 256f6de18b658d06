"""Envelope and message as a record of a work topic, and back; the one place that knows both."""

from __future__ import annotations

import msgspec

from gatepost.core.envelope import (
    ENVELOPE_HEADER,
    TRACEPARENT_HEADER,
    Envelope,
    EnvelopeError,
    decode_envelope,
    encode_envelope,
)
from gatepost.core.ports.log import Entry, Record


class Item(msgspec.Struct, frozen=True, gc=False):
    """A message out of a work topic. `inline` is the message, or empty when it lies in a content topic."""

    envelope: Envelope
    inline: bytes
    traceparent: bytes | None


def work_entry(
    topic: str, envelope: Envelope, inline: bytes, traceparent: bytes | None, key: bytes | None = None
) -> Entry:
    """Return the record to append for a message; `inline` must be empty when the envelope has `content`."""
    headers = [(ENVELOPE_HEADER, encode_envelope(envelope))]
    if traceparent is not None:
        headers.append((TRACEPARENT_HEADER, traceparent))
    return Entry(topic, inline, key, tuple(headers))


def read_item(record: Record) -> Item:
    """Read a record of a work topic. Raises EnvelopeError when it is not ours or too new."""
    data = record.header(ENVELOPE_HEADER)
    if data is None:
        raise EnvelopeError("the record has no envelope")
    return Item(decode_envelope(data), record.value, record.header(TRACEPARENT_HEADER))
