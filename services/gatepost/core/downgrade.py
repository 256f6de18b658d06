"""8-bit messages for hosts without 8BITMIME: MIME leaf parts are encoded, and nothing else changes (RFC 6152 3).

Only what MIME describes can be encoded without changing its meaning: the body of a leaf part whose encoding is 7bit
or 8bit. Text becomes quoted-printable, anything else base64. What cannot be converted (then the message fails with
5.6.3): a header with octets above 127, a message without MIME-Version, `binary` parts, what a signature covers
(multipart/signed) or hides (multipart/encrypted), messages within the message (message/*), and text between parts.
"""

from __future__ import annotations

import base64
import binascii
import re
from itertools import pairwise
from typing import Final

MAX_DEPTH: Final = 20  # as deep as a policy lets messages nest; more is an attack

_CRLF: Final = b"\r\n"
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:((?:[^\r]|\r\n[ \t])*)\r\n")
_BOUNDARY = re.compile(rb";\s*boundary\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([!#-'*+\-.0-9A-Z^-~]+))", re.IGNORECASE)
_TYPE = re.compile(rb"\s*([!#-'*+\-.0-9A-Z^-~]+)\s*/\s*([!#-'*+\-.0-9A-Z^-~]+)\s*(?:;|$)", re.IGNORECASE)
_SEALED: Final = frozenset({b"signed", b"encrypted"})


class NotConvertible(Exception):
    """The message cannot be made 7-bit without changing what it means."""


def seven_bit(message: bytes) -> bytes:
    """Return the message with every octet below 128; itself when it is so already. Raises NotConvertible.

    `message` has CR LF as its only line ends.
    """
    if message.isascii():
        return message
    header, body = _split(message)
    if not _values(header, b"mime-version"):
        raise NotConvertible("no MIME-Version")
    return _entity(header, body, b"text/plain", 0)


def _entity(header: bytes, body: bytes, default: bytes, depth: int) -> bytes:
    """One message or part, its header up to and with the empty line."""
    if body.isascii() and header.isascii():
        return header + body
    if not header.isascii():
        raise NotConvertible("a header that is not ASCII")
    if depth > MAX_DEPTH:
        raise NotConvertible("too deep")
    encoding = _only(header, b"content-transfer-encoding", b"7bit").strip().lower()
    if encoding not in (b"7bit", b"8bit"):
        raise NotConvertible("an encoding that is not what it says")
    content_type = _only(header, b"content-type", default)
    found = _TYPE.match(content_type)
    if found is None:
        raise NotConvertible("a type that cannot be read")
    kind, subtype = found.group(1).lower(), found.group(2).lower()
    if kind == b"multipart":
        if subtype in _SEALED:
            raise NotConvertible("what is signed or encrypted")
        part_default = b"message/rfc822" if subtype == b"digest" else b"text/plain"  # RFC 2046 5.1.5
        return _with_encoding(header, b"7bit") + _parts(body, _boundary(content_type), part_default, depth)
    if kind == b"message":
        raise NotConvertible("a message within the message")  # RFC 2046 5.2.1: it has no encoding of its own
    if kind == b"text":
        return _with_encoding(header, b"quoted-printable") + _quoted_printable(body)
    return _with_encoding(header, b"base64") + base64.encodebytes(body).replace(b"\n", _CRLF)


def _quoted_printable(body: bytes) -> bytes:
    """RFC 2045 6.7. No line begins with a hyphen: a line that was cut could else look like a delimiter of parts."""
    encoded = binascii.b2a_qp(body, istext=True)
    if b"\n" not in body:  # without a line end to go by, it cuts lines as Unix has them
        encoded = encoded.replace(b"\n", b"\r\n")
    encoded = encoded.replace(b"\r\n-", b"\r\n=2D")
    return b"=2D" + encoded[1:] if encoded.startswith(b"-") else encoded


def _parts(body: bytes, boundary: bytes, default: bytes, depth: int) -> bytes:
    """RFC 2046 5.1.1: what lies between two delimiters is a part; the line end before a delimiter belongs to it."""
    delimiter = re.compile(rb"(?:^|\r\n)--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\r\n|\Z)")
    marks = list(delimiter.finditer(body))
    if not marks or marks[-1].group(1) is None:
        raise NotConvertible("parts that do not end")
    end = next(number for number, mark in enumerate(marks) if mark.group(1))
    pieces = [body[: marks[0].start()], body[marks[end].start() :]]
    if not all(piece.isascii() for piece in pieces) or end == 0:
        raise NotConvertible("text outside of the parts")
    out = [pieces[0]]
    for mark, following in pairwise(marks[: end + 1]):
        if following.start() < mark.end() + 2:
            raise NotConvertible("an empty part")
        part = body[mark.end() + 2 : following.start()]
        out += [mark.group(0), _CRLF, _part(part, default, depth)]
    return b"".join(out) + pieces[1]


def _part(part: bytes, default: bytes, depth: int) -> bytes:
    header, body = _split(part)
    return _entity(header, body, default, depth + 1)


def _boundary(content_type: bytes) -> bytes:
    found = _BOUNDARY.search(content_type.replace(_CRLF, b""))
    if found is None:
        raise NotConvertible("no boundary")
    return found.group(2) or re.sub(rb"\\(.)", rb"\1", found.group(1))


def _split(entity: bytes) -> tuple[bytes, bytes]:
    """The header with the empty line behind it, and the body."""
    if entity.startswith(_CRLF):
        return _CRLF, entity[2:]
    end = entity.find(b"\r\n\r\n")
    if end < 0:
        raise NotConvertible("a header without a body")
    return entity[: end + 4], entity[end + 4 :]


def _values(header: bytes, name: bytes) -> list[re.Match[bytes]]:
    """The fields of this name, whose whole lines must be a header."""
    found, place, last = [], 0, len(header) - len(_CRLF)
    while place < last:
        field = _FIELD.match(header, place)
        if field is None:
            raise NotConvertible("a header that cannot be read")
        if field.group(1).lower() == name:
            found.append(field)
        place = field.end()
    return found


def _only(header: bytes, name: bytes, default: bytes) -> bytes:
    fields = _values(header, name)
    if len(fields) > 1:
        raise NotConvertible("a field that stands twice")
    return fields[0].group(2) if fields else default


def _with_encoding(header: bytes, encoding: bytes) -> bytes:
    """The header with this Content-Transfer-Encoding, in the place of the old one or at the end."""
    line = b"Content-Transfer-Encoding: " + encoding + _CRLF
    fields = _values(header, b"content-transfer-encoding")
    if fields:
        return header[: fields[0].start()] + line + header[fields[0].end() :]
    return header[:-2] + line + _CRLF
