"""Tag lists, "a=1; b=2": the form of DKIM and ARC fields and of key records (RFC 6376 3.2, EAI: RFC 8616 3).

    tag-list  =  tag-spec *( ";" tag-spec ) [ ";" ]
    tag-spec  =  [FWS] tag-name [FWS] "=" [FWS] tag-value [FWS]
    tag-name  =  ALPHA *ALNUMPUNC
    tag-value =  [ tval *( 1*(WSP / FWS) tval ) ]

Read in one pass, linear in the size; a tag that stands twice makes the whole list invalid, as the RFC says.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
# VALCHAR = %x21-3A / %x3C-7E, with UTF-8 (RFC 8616 3), and white space inside; folds are taken out before.
_VALUE: Final = re.compile(r"[\x21-\x3a\x3c-\x7e\x80-\U0010ffff \t]*")
_FOLD: Final = re.compile(r"\r\n(?=[ \t])")
_SPACE: Final = re.compile(r"[ \t\r\n]+")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}")


class TagListError(ValueError):
    """The text is no tag list. The message does not quote it."""


def read_tags(text: str) -> dict[str, str]:
    """Return the tags in order of appearance. Raises TagListError. Names keep their case (RFC 6376 3.2)."""
    parts = _FOLD.sub("", text).split(";")
    if not parts[-1].strip(" \t"):
        parts.pop()
    tags: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name, value = name.strip(" \t"), value.strip(" \t")
        if not equals or _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise TagListError("not a list of tags")
        if name in tags:
            raise TagListError("a tag stands twice")
        tags[name] = value
    return tags


def field_text(value: bytes) -> str:
    """Return a field's value as text; octets that are no UTF-8 become characters that no grammar allows."""
    return value.decode("utf-8", "surrogateescape").translate(_SURROGATES)


# surrogateescape gives U+DC80 to U+DCFF; NUL is outside every grammar here.
_SURROGATES: Final = {0xDC00 + octet: "\x00" for octet in range(0x80, 0x100)}


def without_space(text: str) -> str:
    """Take out all white space, as in base64 values (RFC 6376 3.5 b=: white space is ignored)."""
    return _SPACE.sub("", text)


def colon_list(text: str) -> list[str]:
    """Split a value at its colons, white space around them taken away (RFC 6376 3.5 h=, q=; 3.6.1 h=, s=, t=)."""
    return [part.strip(" \t") for part in text.split(":")]


def base64_octets(text: str) -> bytes | None:
    """Return the octets of a base64string (RFC 6376 2.10), or None when it is none."""
    packed = without_space(text)
    # Padding that was left out is common in key records, and means nothing else (RFC 4648 3.2).
    if _BASE64.fullmatch(packed) is None or len(packed.rstrip("=")) % 4 == 1:
        return None
    digits = packed.rstrip("=")
    return binascii.a2b_base64(digits + "=" * (-len(digits) % 4))
