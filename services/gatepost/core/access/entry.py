"""One access rule as it is written, in policies and in table files alike."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

import msgspec

from gatepost.core.manifest.actions import Action

MAX_TEXT: Final = 400  # fits a reply line of 512 octets (RFC 5321 4.5.3.1.5) with codes, check and id
# RFC 3463 2: class "." subject "." detail, in digits of ASCII.
ENHANCED: Final = r"^[45]\.[0-9]{1,3}\.[0-9]{1,3}$"


class Tag(Enum):
    """What a rule's key is compared with. ANY: client, sender and recipient (an untagged key)."""

    CONNECT = "connect"
    HELO = "helo"
    FROM = "from"
    TO = "to"
    ANY = ""


class AccessError(ValueError):
    """A rule cannot be used; the message says why, in words for the person who wrote it."""


class AccessEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key and what is done. `action` None: nothing, and no less specific key is looked up (sendmail's SKIP).

    `code` 0 and empty `enhanced` and `text` mean the defaults of the action.
    """

    tag: Tag
    key: str
    action: Action | None = None
    code: int = 0
    enhanced: str = ""
    text: str = ""


def check_entry(entry: AccessEntry) -> None:
    """Check what can be wrong whatever the key. Raises AccessError."""
    if entry.action is Action.RELAY and entry.tag is Tag.FROM:
        raise AccessError("Relay never goes by the sender: anybody can write a sender's address")
    if entry.action is Action.RELAY and entry.tag is Tag.HELO:
        raise AccessError("Relay never goes by the HELO name: anybody can say any name")
    if entry.code or entry.enhanced:
        _check_codes(entry)
    if len(entry.text) > MAX_TEXT or not (entry.text.isascii() and (entry.text.isprintable() or not entry.text)):
        raise AccessError(f"the text must be printable ASCII of at most {MAX_TEXT} characters (RFC 5321 4.2)")


def _check_codes(entry: AccessEntry) -> None:
    if entry.action not in (Action.REJECT, Action.DEFER):
        raise AccessError("a code has a meaning only with Reject and Defer")
    first = "5" if entry.action is Action.REJECT else "4"
    if entry.code == 421:
        raise AccessError("421 would end the session; Defer answers 450 or 451")
    if entry.code and (str(entry.code)[0] != first or not 400 <= entry.code <= 559):
        raise AccessError(f"{entry.action.value} answers {first}xx, not {entry.code}")
    if entry.enhanced and not (entry.enhanced[0] == first and re.fullmatch(ENHANCED, entry.enhanced)):
        raise AccessError(f"{entry.action.value} wants an enhanced code {first}.x.x, not {entry.enhanced!r}")
