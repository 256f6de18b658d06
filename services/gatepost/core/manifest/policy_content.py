"""RelayPolicy's `headers`, `charset` and `attachments`: what a message may have in it."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import msgspec

from gatepost.core.manifest.actions import Action
from gatepost.core.manifest.object import SpecPart

FieldName = Annotated[str, msgspec.Meta(pattern="^[!-9;-~]+$", min_length=1, max_length=100)]  # RFC 5322 3.6.8
Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
ReplyText = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
CharsetName = Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
Extension = Annotated[str, msgspec.Meta(min_length=1, max_length=40)]


class HeaderPreset(Enum):
    """Ready rules; each is off until it is named. The ones for attachments look into every level and archive."""

    ADVERTISEMENT = "Advertisement"
    MESSAGE_ID_WITHOUT_AT = "MessageIdWithoutAt"
    ROUTE_ADDRESS = "RouteAddress"
    CONSECUTIVE_SPACES = "ConsecutiveSpaces"
    EXE_ATTACHMENT = "ExeAttachment"
    VBS_ATTACHMENT = "VbsAttachment"
    LOVELETTER = "Loveletter"
    MELISSA = "Melissa"
    HAPPY99 = "Happy99"
    PAPA = "Papa"


class HeaderRuleSpec(SpecPart, frozen=True):
    """A `pattern` for the fields of a `name`, or a `preset`."""

    name: FieldName | None = None
    """The field's name, in any case."""
    pattern: Pattern | None = None
    """An expression of RE2 (linear time: no back references, no look-around), searched in the unfolded value as it
    stands and with its encoded words decoded. Case does not matter unless the pattern says (?-i)."""
    preset: HeaderPreset | None = None
    action: Action | None = None
    """Tag without it, so that false hits are seen first; then Accept (only noted), Quarantine, Discard, Defer,
    Reject."""
    invert: bool | None = None
    """True: acts when no such field matches, also when there is none. Not for presets."""
    text: ReplyText | None = None
    """What a refused sender reads."""


HeaderRuleSpecs = Annotated[tuple[HeaderRuleSpec, ...], msgspec.Meta(max_length=64)]


class CharsetSpec(SpecPart, frozen=True):
    """In what character sets headers and texts may be written. Exempt clients are spared."""

    allowed: Annotated[tuple[CharsetName, ...], msgspec.Meta(min_length=1, max_length=32)]
    """As `[us-ascii, iso-2022-jp]`. What is declared must be allowed, and what is written must be what is declared;
    within iso-2022-jp half-width kana and the special characters of NEC and IBM are not allowed."""
    action: Action | None = None
    """Tag without it."""


class AttachmentsSpec(SpecPart, frozen=True):
    """File names at every level of a message, in broken MIME, and in archives."""

    extensions: Annotated[dict[Extension, Action], msgspec.Meta(max_length=256)] | None = None
    """As `{exe: Reject, pif: Quarantine}`, without the dot; case does not matter, the last extension counts."""
    remove: Annotated[tuple[Extension, ...], msgspec.Meta(max_length=256)] | None = None
    """Such parts are left out, for all recipients, and a note stands in their place. Breaks DKIM signatures."""
    note: Annotated[str, msgspec.Meta(min_length=1, max_length=500)] | None = None
    """The text in the place of a removed part; `$name` is its file name. English without it."""
    max_depth: Annotated[int, msgspec.Meta(ge=1, le=50)] | None = None
    """20. Parts within parts; what lies deeper is looked at without regard to its structure."""
    max_parts: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    """1000."""
    inside_archives: bool | None = None
    """True. The names in zip, tar, gz, bz2, xz and rar, and in archives within them."""
    malformed: Action | None = None
    """Tag. For MIME that is broken, too deep or has too many parts; all that can be found is checked anyway."""
    opaque: Action | None = None
    """Tag. For archives that cannot be looked into: encrypted, damaged, too large, 7z and others."""
