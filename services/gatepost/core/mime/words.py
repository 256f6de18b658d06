"""Encoded words and character sets in headers: what a reader sees, and what it was written in.

Sources: RFC 2047 (encoded words), RFC 2231 5 (with a language). Lenient where readers are: white space inside an
encoded word, padding that is missing, a character that two words share. Linear in the text's length.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import quopri
import re
from functools import lru_cache
from typing import Final, NamedTuple

# RFC 2047 2: "=?" charset ["*" language] "?" encoding "?" encoded-text "?=". Every part stops at a question mark.
_WORD: Final = re.compile(r"=\?([!-)+->@-~]{1,60})(?:\*[!->@-~]{0,60})?\?([bBqQ])\?([^?]*)\?=")
# RFC 2047 6.2: white space between two encoded words is no part of the text.
_BETWEEN: Final = re.compile(r"(?<=\?=)[ \t\r\n]+(?==\?)")
# Codecs that turn octets into text. Others of Python's are no character sets, or are slow (punycode, idna).
_TEXT_CODEC: Final = re.compile(
    r"us_?ascii|ascii|ansi_x3_4.*|utf_?(7|8|16|32)(_?[bl]e)?|iso_?8859_?\d+(_[ei])?|latin_?\d|windows_?\d+|cp_?\d+|koi8_?[rut]|"
    r"gb_?2312(_80)?|gbk|gb_?18030|hz(_gb_2312)?|big5(_?hkscs)?|euc_?(jp|kr|cn)|x_euc_jp|x_sjis|s(hift)?_?jis|ms_kanji|"
    r"iso_?2022_?(jp|kr)(_?\d|_ext)?|ks_?c_?5601.*|johab|mac(intosh|_?roman|_?cyrillic)|tis_?620|ptcp154"
)
_ALIASES: Final = {"x_sjis": "shift_jis", "x_euc_jp": "euc_jp", "hz_gb_2312": "hz", "windows_31j": "cp932"}


class Word(NamedTuple):
    """One encoded word: its charset in lower case, and its octets."""

    charset: str
    octets: bytes


def decode_words(text: str) -> str:
    """Return a header's text with its encoded words decoded; the text itself where it has none."""
    if "=?" not in text:
        return text
    out: list[str] = []
    charset, pending, at = "", b"", 0
    text = _BETWEEN.sub("", text)
    for found in _WORD.finditer(text):
        word = _word(found)
        if found.start() > at or word.charset != charset:
            # A character may be cut in two by its words, against RFC 2047 5: neighbours are decoded together.
            out.append(decode(pending, charset))
            out.append(text[at : found.start()])
            charset, pending = word.charset, b""
        pending += word.octets
        at = found.end()
    out.append(decode(pending, charset))
    out.append(text[at:])
    return "".join(out)


def encoded_words(text: str) -> list[Word]:
    """Return the encoded words of a header's text, in order."""
    return [_word(found) for found in _WORD.finditer(text)] if "=?" in text else []


def _word(found: re.Match[str]) -> Word:
    charset, encoding, text = found.groups()
    raw = text.encode("utf-8", "surrogateescape")
    if encoding in "bB":
        raw = raw.translate(None, b" \t\r\n=")
        try:
            octets = base64.b64decode(raw + b"=" * (-len(raw) % 4))
        except binascii.Error:
            octets = b""
    else:
        octets = quopri.decodestring(raw, header=True)
    return Word(charset.lower(), octets)


def decode(octets: bytes, charset: str) -> str:
    """Return text from octets of a named character set; each octet as a character where that is not known."""
    if not octets:
        return ""
    codec = text_codec(charset)
    return octets.decode("latin-1") if codec is None else octets.decode(codec.name, "replace")


@lru_cache(maxsize=256)
def text_codec(charset: str) -> codecs.CodecInfo | None:
    """Return the codec of a character set as mail names it, None for what is none."""
    name = re.sub(r"[^a-z0-9]+", "_", charset.lower()).strip("_")
    name = _ALIASES.get(name, name)
    if len(name) > 40 or not _TEXT_CODEC.fullmatch(name):
        return None
    try:
        return codecs.lookup(name)
    except LookupError:
        return None
