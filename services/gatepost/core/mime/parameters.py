"""Parameters of Content-Type and Content-Disposition, read as leniently as any mail program does.

Sources: RFC 2045 5.1 (syntax), RFC 2231 3 and 4 (continuations, charsets), RFC 2047 (encoded words, which programs
write into parameters against its section 5). One pass; linear in the field's length.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes

from gatepost.core.mime.words import decode, decode_words

# Of one field; honest ones have a handful (RFC 2231 cuts a long name into some dozens at the most).
MAX_PARAMETERS: Final = 200


def unfolded(value: bytes) -> str:
    """The text of a field's value on one line; octets that are no UTF-8 stay one character each."""
    value = value.replace(b"\r\n", b"")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def media_type(text: str) -> str:
    """The type of a Content-Type in lower case, or the first word of another field."""
    return text.partition(";")[0].strip().lower()


def parameters(text: str) -> list[tuple[str, str]]:
    """Return (name in lower case, value) of all parameters, also those that stand twice.

    A name with RFC 2231's stars gives one value, joined from its sections.
    """
    plain: list[tuple[str, str]] = []
    sections: dict[str, list[tuple[int, bool, str]]] = {}
    for name, value in _raw(text):
        base, star, rest = name.partition("*")
        if not star:
            plain.append((name, value))
            plain += [(name, decoded)] if (decoded := decode_words(value)) != value else []
            continue
        number, _, encoded = rest.partition("*")
        is_encoded = rest == "" or rest.endswith("*") or bool(encoded)
        sections.setdefault(base, []).append((int(number) if number.isdecimal() else 0, is_encoded, value))
    for base, found in sections.items():
        plain += [(base, value) for value in _joined(found)]
    return plain


def _joined(sections: list[tuple[int, bool, str]]) -> list[str]:
    """RFC 2231 3 and 4.1: in the order of their numbers, each encoded or not; the first names the charset."""
    if len({number for number, _, _ in sections}) < len(sections):
        # One number stands twice: programs take the one or the other.
        return [value for one in sections for value in _one_value([one])]
    return _one_value(sorted(sections, key=lambda one: one[0]))


def _one_value(sections: list[tuple[int, bool, str]]) -> list[str]:
    charset, octets = "utf-8", b""
    for place, (_, encoded, value) in enumerate(sections):
        if not encoded:
            octets += value.encode("utf-8", "replace")
            continue
        if place == 0 and value.count("'") >= 2:
            charset, _, value = value.split("'", 2)
        octets += unquote_to_bytes(value.encode("utf-8", "replace"))
    return [decode(octets, charset or "utf-8")]


def _raw(text: str) -> list[tuple[str, str]]:
    """(name, value) as they stand. What has no semicolon in front, as `attachment filename=x`, counts too."""
    found: list[tuple[str, str]] = []
    at, end = 0, len(text)
    while at < end and len(found) < MAX_PARAMETERS:
        equals, semicolon = text.find("=", at), text.find(";", at)
        if equals < 0:
            break
        if 0 <= semicolon < equals:
            at = semicolon + 1
            continue
        words = text[at:equals].split()
        at = equals + 1
        while at < end and text[at] in " \t":
            at += 1
        quoted = text[at : at + 1] == '"'
        value, at = _quoted(text, at + 1) if quoted else _token(text, at)
        if words:
            found.append((words[-1].lower(), value))
            strict = (
                value if quoted else " ".join(value.partition("(")[0].split()[:1])
            )  # RFC 2045 5.1, RFC 822 3.4.3
            if strict != value:
                found.append((words[-1].lower(), strict))
    return found


def _quoted(text: str, at: int) -> tuple[str, int]:
    """A quoted string from behind its quote; up to the end where the other quote is missing."""
    out: list[str] = []
    end = len(text)
    quote = escape = at - 1
    while True:
        if 0 <= quote < at:
            quote = text.find('"', at)
        if 0 <= escape < at:
            escape = text.find("\\", at)
        if escape >= 0 and (escape < quote or quote < 0):
            out += (text[at:escape], text[escape + 1 : escape + 2])
            at = escape + 2
            continue
        stop = end if quote < 0 else quote
        out.append(text[at:stop])
        return "".join(out), min(stop + 1, end)


def _token(text: str, at: int) -> tuple[str, int]:
    """An unquoted value: up to the semicolon, since programs write names with blanks so."""
    semicolon = text.find(";", at)
    stop = len(text) if semicolon < 0 else semicolon
    return text[at:stop].strip(" \t"), stop
