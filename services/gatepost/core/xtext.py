"""xtext: how parameters of SMTP carry spaces, "+" and "=" (RFC 3461 4), and UTF-8 addresses (RFC 6533 3).

xtext   = *( xchar / hexchar )
xchar   = any ASCII CHAR between "!" (33) and "~" (126) inclusive, except for "+" and "="
hexchar = "+" two upper case hexadecimal digits
"""

from __future__ import annotations

import re
from typing import Final

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
# RFC 6533 3: utf-8-addr-xtext and unitext put a character as \x{HEX}; a surrogate or a control is none.
_EMBEDDED = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_MAX_CHARACTER: Final = 0x10FFFF


class XtextError(ValueError):
    """The text is no xtext, or what it stands for cannot be printed."""


def decode_xtext(text: str) -> str:
    """The text that an ASCII xtext stands for, printable ASCII and spaces only. Raises XtextError.

    ENVID and ORCPT stand for printable characters (RFC 3461 4.2, 4.4); others could end a line of a report.
    """
    if _XTEXT.fullmatch(text) is None:
        raise XtextError("no xtext")
    decoded = _HEXCHAR.sub(lambda found: chr(int(found.group(1), 16)), text)
    if not decoded.isascii() or not decoded.isprintable():
        raise XtextError("not printable")
    return decoded


def decode_utf8_address(text: str) -> str:
    """The address that an address of type utf-8 stands for (RFC 6533 3). Raises XtextError."""
    if any(character in "+=" or not character.isprintable() or character == " " for character in text):
        raise XtextError("a character that must be embedded")

    def one(found: re.Match[str]) -> str:
        number = int(found.group(1), 16)
        if number > _MAX_CHARACTER or not chr(number).isprintable():
            raise XtextError("an embedded character that cannot be printed")
        return chr(number)

    decoded = _EMBEDDED.sub(one, text)
    if "\\x{" in _EMBEDDED.sub("", text):
        raise XtextError("a broken embedded character")
    return decoded
