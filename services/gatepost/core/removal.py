"""Parts that are left out of a message, and the note in their place: as spans and texts of the envelope.

The message's own octets stay as they were received (docs/adr/0011): the envelope says what to leave out and what to
put in. Delimiters are never touched, so the structure stays whole (RFC 2046 5.1.1); a signature over the body does
not verify any more behind us.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final, NamedTuple

from gatepost.core.headers import Field, spans
from gatepost.core.leaving import Insert, Span
from gatepost.core.mime.file_names import shown
from gatepost.core.mime.part import Part, Uuencoded

NOTE: Final = (
    'The file "$name" was removed from this message by the mail gateway:\n'
    "files of this kind are not delivered here."
)


class Removal(NamedTuple):
    """What of a message is left out, and what is put in, in order."""

    strip: tuple[Span, ...] = ()
    insert: tuple[Insert, ...] = ()


NOTHING_REMOVED: Final = Removal()


class Whole(NamedTuple):
    """What must be known of the message: its header, whether a body follows it, and its octets."""

    header: bytes
    has_body: bool
    size: int


def removal(parts: Sequence[tuple[Part | Uuencoded, str]], note: str, message: Whole) -> Removal:
    """Return how to leave out parts (each with its file's name)."""
    strip: list[Span] = []
    insert: list[Insert] = []
    whole = [part for part, _ in parts if isinstance(part, Part)]
    for part, name in parts:
        if isinstance(part, Uuencoded) and any(one.begin <= part.begin < one.end for one in whole):
            continue  # it goes with the text that it stands in
        text = (note or NOTE).replace("$name", shown(name))
        if isinstance(part, Uuencoded):
            _file(part, text, strip, insert)
        elif part.depth == 0:
            _message(part, text, message, strip, insert)
        else:
            end = "" if part.end < message.size else "\r\n"
            strip.append((part.begin, part.end - part.begin))
            insert.append((part.begin, _note(text, "\r\n") + end))
    return Removal(tuple(sorted(strip)), tuple(sorted(insert, key=lambda one: one[0])))


def _file(file: Uuencoded, text: str, strip: list[Span], insert: list[Insert]) -> None:
    """A file in a text: its lines, with a note in ASCII, for the text's charset may be any."""
    strip.append((file.begin, file.end - file.begin))
    lines = text.encode("ascii", "replace").decode("ascii").splitlines()
    insert.append((file.begin, "".join(f"[{line}]\r\n" for line in lines)))


def _message(part: Part, text: str, message: Whole, strip: list[Span], insert: list[Insert]) -> None:
    """The message is the file: other Content fields, and another body."""
    at = (
        part.body
        if message.has_body and part.body == len(message.header) + 2
        else min(part.body, len(message.header))
    )
    content = [one for one in spans(message.header, _is_content) if one[0] < part.body]
    strip += content
    strip.append((at, message.size - at))
    version = "" if any(field.name == b"mime-version" for field in part.fields) else "MIME-Version: 1.0\r\n"
    header, _, body = _note(text, "\r\n").partition("\r\n\r\n")
    place = content[0][0] if content else min(at, len(message.header))
    insert.append((place, f"{version}{header}\r\n"))
    insert.append((at, body + "\r\n" if at == part.body and message.has_body else f"\r\n{body}\r\n"))


def _is_content(field: Field) -> bool:
    return field.name.startswith(b"content-")


def _note(text: str, line_end: str) -> str:
    """A part of text/plain without its last line end."""
    lines = text.splitlines() or [""]
    # A line of dashes could be taken for a delimiter, and the name in it is the sender's.
    plain = text.isascii() and not any(line.startswith(("-", ".", "From ")) for line in lines)
    if plain:
        charset, encoding, body = "us-ascii", "7bit", line_end.join(lines)
    else:
        octets = base64.encodebytes("\r\n".join(lines).encode("utf-8")).decode("ascii")
        charset, encoding, body = "utf-8", "base64", octets.rstrip("\n").replace("\n", line_end)
    head = (
        f"Content-Type: text/plain; charset={charset}",
        f"Content-Transfer-Encoding: {encoding}",
        "Content-Disposition: inline",
    )
    return line_end.join((*head, "", body))
