"""The envelope: all that belongs to a message but is not its bytes, and how both lie in a record of the log.

A record's value is the message as it was received, byte for byte; the record's headers carry `envelope`
(JSON of Envelope) and `traceparent`. What we add in front of the message (Received, Return-Path,
Authentication-Results) stays in `Envelope.prepend` until the message leaves. docs/compatibility.md binds
the shape: a field may be added with a default, never renamed, retyped or removed within a version.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

VERSION: Final = 1

ENVELOPE_HEADER: Final = "envelope"
TRACEPARENT_HEADER: Final = "traceparent"

# Bodies above this are not carried inline: a record with them would make every later copy as large.
INLINE_LIMIT: Final = 64 * 1024
# A piece of a body: with its headers below 1 MiB, a broker's default message.max.bytes (1048588).
PIECE_SIZE: Final = 900 * 1024


class EnvelopeError(ValueError):
    """A record has no envelope that this version can read."""


class Trust(Enum):
    """How far the return path can be trusted, which decides what a DSN to it may do."""

    AUTHENTICATED = "Authenticated"
    SPF_PASS = "SpfPass"  # noqa: S105
    DKIM_ALIGNED = "DkimAligned"
    UNVERIFIED = "Unverified"


class BodyType(Enum):
    """The declared body type (RFC 6152 2; RFC 3030 has no BINARYMIME here)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"


class Recipient(msgspec.Struct, frozen=True, omit_defaults=True):
    """One forward-path: `address` as an Address's text; `id` is derived once the copy is an own thing.

    `original` is the address that the client named where aliases or routing have changed it; `notify` and
    `orcpt` are the DSN parameters (RFC 3461 4.1, 4.2) byte for byte. `quarantine` is the reason for which this
    recipient's copy is not delivered but kept for a person.
    """

    address: str
    id: str = ""
    original: str = ""
    notify: str = ""
    orcpt: str = ""
    quarantine: str = ""


class Client(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who handed the message over. `login` is the authenticated account's name, never a password."""

    address: str = ""
    port: int = 0
    helo: str = ""
    name: str = ""
    tls: str = ""
    login: str = ""
    listener: str = ""


class ContentRef(msgspec.Struct, frozen=True):
    """A body by reference: its pieces' offsets in one partition of a content topic, in order."""

    topic: str
    partition: int
    offsets: tuple[int, ...]
    size: int
    sha256: str


class Deferral(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a copy that was deferred: attempts so far, the last reason, when it came, where it returns."""

    attempts: int = 0
    first_ms: int = 0
    last_reply: str = ""
    remote: str = ""
    return_topic: str = ""


class Destination(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the router sends a copy. For the relay: `domain` or explicit `hosts` (`[name]:port` = no MX).

    For a store: `store` and the `mailbox` in it.
    """

    store: str = ""
    mailbox: str = ""
    domain: str = ""
    hosts: tuple[str, ...] = ()
    site: str = ""


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    """The envelope of a message or of one copy. `reverse_path` is empty for the null sender.

    `size` and `sha256` are of the message as received. `received_ms` is the acceptance time. `prepend` are
    complete header lines with CRLF, newest first, to be written in front of the message. `tags` are what checks
    noted ("check: reason"); `quarantine` is the reason for which no recipient's copy is delivered.
    `strip` are spans (offset, octets) of the message as received, in order, that are left out when it leaves, and
    `insert` texts (offset, text) that stand there then (core/leaving.py).
    """

    v: int
    id: str
    reverse_path: str
    recipients: tuple[Recipient, ...]
    received_ms: int
    size: int
    sha256: str = ""
    client: Client = Client()
    trust: Trust = Trust.UNVERIFIED
    body: BodyType = BodyType.SEVEN_BIT
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    prepend: str = ""
    parent: str = ""
    content: ContentRef | None = None
    destination: Destination | None = None
    deferral: Deferral | None = None
    tags: tuple[str, ...] = ()
    quarantine: str = ""
    strip: tuple[tuple[int, int], ...] = ()
    insert: tuple[tuple[int, str], ...] = ()

    @property
    def is_bounce(self) -> bool:
        return not self.reverse_path


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Envelope)


def encode_envelope(envelope: Envelope) -> bytes:
    return _encoder.encode(envelope)


def decode_envelope(data: bytes) -> Envelope:
    """Read an envelope. Raises EnvelopeError for damaged data or a version that we do not know."""
    try:
        envelope = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise EnvelopeError(f"the envelope cannot be read: {error}") from None
    if envelope.v != VERSION:
        raise EnvelopeError(f"the envelope has version {envelope.v}; this program reads version {VERSION}")
    return envelope
