"""The configuration on its way over the log: parts by content, a head per schema major and epoch, acks.

The epoch is in the head's key, so that a deposed operator's late write cannot replace a newer head. Shapes
are bound by docs/compatibility.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gatepost.core.configuration import SCHEMA_MAJOR, Configuration, decode_configuration
from gatepost.core.envelope import PIECE_SIZE

FEATURES: Final = frozenset[str]()
"""What a configuration may require of the program beyond its schema; grows with fields that must not be ignored."""


class HeadError(ValueError):
    """A head cannot be used: parts are missing or damaged, or it needs a newer program."""


class Head(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Points to the configuration in force. `generation` counts what this epoch's operator has published."""

    instance: str
    epoch: int
    generation: int
    hash: str
    parts: tuple[str, ...]
    requires: tuple[str, ...] = ()


class Ack(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What one process runs, keyed by its pod's UID. `error` is why a newer one is not in force."""

    pod: str
    service: str
    at_ms: int
    epoch: int = 0
    generation: int = 0
    hash: str = ""
    error: str = ""


def part_key(digest: str) -> bytes:
    return f"part/{digest}".encode("ascii")


def head_key(epoch: int) -> bytes:
    return f"head/{SCHEMA_MAJOR}/{epoch}".encode("ascii")


def read_head_key(key: bytes) -> int | None:
    """Return the epoch of a head of our major, None for any other key."""
    kind, _, rest = key.decode("ascii", "replace").partition("/")
    major, _, epoch = rest.partition("/")
    if kind != "head" or major != str(SCHEMA_MAJOR) or not epoch.isdecimal():
        return None
    return int(epoch)


def split(configuration: Configuration) -> tuple[tuple[str, bytes], ...]:
    """Return (SHA-256, bytes) of each part, at most PIECE_SIZE bytes."""
    data = configuration.encode()
    pieces = [data[start : start + PIECE_SIZE] for start in range(0, len(data), PIECE_SIZE)]
    return tuple((hashlib.sha256(piece).hexdigest(), piece) for piece in pieces)


def join(head: Head, parts: Mapping[str, bytes], features: frozenset[str] = FEATURES) -> Configuration:
    """Return the configuration that a head points to. Raises HeadError."""
    lacking = sorted(set(head.requires) - features)
    if lacking:
        raise HeadError(f"the configuration needs features that this program lacks: {', '.join(lacking)}")
    missing = [digest for digest in head.parts if digest not in parts]
    if missing:
        raise HeadError(f"{len(missing)} of {len(head.parts)} parts are missing")
    data = b"".join(parts[digest] for digest in head.parts)
    if hashlib.sha256(data).hexdigest() != head.hash:
        raise HeadError("the parts do not give the hash in the head")
    try:
        return decode_configuration(data)
    except ValueError as error:
        raise HeadError(str(error)) from None


def newest(heads: Mapping[int, Head]) -> Head | None:
    """The head of the highest epoch, None when there is none."""
    return heads[max(heads)] if heads else None


def encode(value: Head | Ack) -> bytes:
    return msgspec.json.encode(value)


def decode_head(data: bytes) -> Head | None:
    try:
        return msgspec.json.decode(data, type=Head)
    except msgspec.MsgspecError:
        return None


def decode_ack(data: bytes) -> Ack | None:
    try:
        return msgspec.json.decode(data, type=Ack)
    except msgspec.MsgspecError:
        return None


def live_acks(acks: Sequence[Ack], service: str, now_ms: int, max_age_ms: int) -> tuple[Ack, ...]:
    """The acks of a service's processes that are alive: heard of within `max_age_ms`."""
    return tuple(ack for ack in acks if ack.service == service and now_ms - ack.at_ms <= max_age_ms)
