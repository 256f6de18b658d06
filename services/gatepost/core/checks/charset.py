"""Check `charset`: in what character sets headers and texts are declared, and in what they really are written.

Meant for sites whose readers have old programs (ISO-2022-JP only, as Japanese lists once asked), and against mail
that says one thing and is another. ASCII is a part of every set and always allowed. Sources: RFC 1468 (ISO-2022-JP:
four escape sequences, JIS X 0208 and ASCII), RFC 2045 5.2 (us-ascii where nothing is said), RFC 2047, RFC 2231 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from gatepost.core.checks.verdict import Verdict
from gatepost.core.headers import Field
from gatepost.core.manifest.actions import Action
from gatepost.core.mime.words import encoded_words, text_codec
from gatepost.core.reply import Reply

CHECK: Final = "charset"

CHARSET_REFUSED: Final = Reply(554, "5.7.1", "the message has characters that are not taken here", CHECK)
CHARSET_DEFERRED: Final = Reply(451, "4.7.1", "the message has characters that are not taken at the moment", CHECK)

# Octets of one text that are looked at, and kept while it comes: 32,000 Japanese characters.
MAX_TEXT: Final = 64 * 1024

ASCII: Final = "ascii"
JAPANESE: Final = "iso2022_jp"
UTF_8: Final = "utf-8"

_EXTENDED: Final = re.compile(rb"\*(?:0\*)?[ \t]*=[ \t]*\"?([A-Za-z0-9_-]{2,40})'")
_DOUBLE: Final = (b"$@", b"$B")
_SINGLE: Final = (b"(B", b"(J")
# JIS X 0208 has rows 1 to 8 and 16 to 84. NEC's row 13 (circled digits, Roman numerals) and 89 to 92, and those of
# IBM, are what other programs show as something else.
_ROWS: Final = bytes((*range(0x21, 0x29), *range(0x30, 0x75)))


class CharsetPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """`allowed` are names of canonical()."""

    allowed: tuple[str, ...]
    action: Action = Action.TAG


class Finding(msgspec.Struct, frozen=True):
    """What is not allowed, and where: a field's name, or the number of a part."""

    where: str
    reason: str


def canonical(name: str) -> str:
    """One name for all that mean the same character set; of an unknown one the name in lower case."""
    codec = text_codec(name)
    return name.strip().lower() if codec is None else codec.name


def header_finding(policy: CharsetPolicy, fields: Iterable[Field]) -> Finding | None:
    """The first field with characters that are not allowed."""
    for field in fields:
        reason = _field_fault(policy, field)
        if reason:
            return Finding(field.name.decode("ascii"), reason)
    return None


def _field_fault(policy: CharsetPolicy, field: Field) -> str:
    value = field.value
    if value.isascii():
        fault = text_fault(policy, "us-ascii", value) if b"\x1b" in value else ""
        if fault:
            return fault
    else:
        if UTF_8 not in policy.allowed:
            return "8-bit octets in a header"
        if fault := text_fault(policy, UTF_8, value):  # RFC 6532 3
            return fault
    if field.name.startswith(b"content-"):
        for declared in _EXTENDED.findall(value):
            if not _is_allowed(policy, canonical(declared.decode("ascii"))):
                return f"{declared.decode('ascii').lower()} in a parameter"
    if b"=?" not in value:
        return ""
    words: dict[str, bytes] = {}
    for word in encoded_words(value.replace(b"\r\n", b"").decode("latin-1")):
        # A character may be cut in two by its words, against RFC 2047 5.
        words[word.charset] = words.get(word.charset, b"") + word.octets
    return next((fault for charset, octets in words.items() if (fault := text_fault(policy, charset, octets))), "")


def text_fault(policy: CharsetPolicy, declared: str, octets: bytes, *, cut: bool = False) -> str:
    """What is wrong with a text, empty if nothing is. `declared` empty: nothing was said; `cut`: it goes on."""
    name = canonical(declared or "us-ascii")
    if name == ASCII:
        if not octets.isascii():
            return "8-bit octets where us-ascii is declared"
        if b"\x1b" not in octets:
            return ""
        if JAPANESE not in policy.allowed:
            return "escape sequences where us-ascii is declared"
        name = JAPANESE
    if not _is_allowed(policy, name):
        return f"charset {_printable(declared)}"
    if name == JAPANESE:
        return japanese_fault(octets)
    codec = text_codec(name)
    if codec is None:
        return ""
    try:
        decoder = codec.incrementaldecoder("strict")
        decoder.decode(octets, final=not cut)
    except UnicodeError:
        return f"octets that are no {_printable(declared)}"
    return ""


def _is_allowed(policy: CharsetPolicy, name: str) -> bool:
    return name == ASCII or name in policy.allowed


def japanese_fault(octets: bytes) -> str:
    """What is wrong with a text in ISO-2022-JP (RFC 1468), empty if nothing is."""
    if not octets.isascii():
        return "8-bit octets in iso-2022-jp"
    if b"\x0e" in octets or b"\x0f" in octets:
        return "half-width kana in iso-2022-jp"
    for segment in octets.split(b"\x1b")[1:]:
        escape, text = segment[:2], segment[2:]
        if escape == b"(I":
            return "half-width kana in iso-2022-jp"
        if escape in _SINGLE:
            continue
        if escape not in _DOUBLE:
            return "an escape sequence that iso-2022-jp does not have"
        # RFC 1468: a line ends in ASCII; programs take the end of a line for the end of the Japanese text.
        characters = text.partition(b"\n")[0].rstrip(b"\r")
        if characters[::2].translate(None, _ROWS):
            return "special characters of NEC or IBM in iso-2022-jp"
    return ""


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:40])


def verdict(policy: CharsetPolicy, finding: Finding) -> Verdict:
    reply = {Action.REJECT: CHARSET_REFUSED, Action.DEFER: CHARSET_DEFERRED}.get(policy.action)
    facts = {"where": finding.where, "found": finding.reason}
    return Verdict(CHECK, policy.action, reply, facts, reason=f"{finding.reason} ({finding.where})")
