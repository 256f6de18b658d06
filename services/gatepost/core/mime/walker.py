"""Walks through the parts of a message that comes in pieces of any size: every level, whole or broken.

Follows RFC 2046 5.1 where a message does, and finds parts also where it does not, for readers differ in how they
repair (Nimda and SirCam lived on that):
 R1  a line that is "--" and an open boundary, with or without "--" behind, is a delimiter, the innermost first; an
     outer one ends everything inside (RFC 2046 5.1.2)
 R2  within a multipart any line "--..." with a Content field in the next line is a delimiter too, wherever it
     stands: a boundary that was declared otherwise or not at all, one that only begins with an open one, a part
     behind the end. From then on it counts as one of the multipart's own
 R3  a header that a line interrupts which is no field goes on for those who pass over such lines, and is over for
     the others: fields behind it count, and the body begins with it
 R4  the body of a message/rfc822 begins with a header
 R5  what is too deep is not taken apart by R1, only by R2
 R6  `begin 644 name` at the begin of a line is a uuencoded file

Only CR LF ends a line, as at the door. Memory: a header (MAX_HEADER), a line, and one entry for each open level.
Cost: linear in the octets, and bounded for lines that look like delimiters and are none.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from gatepost.core.mime.file_names import file_names
from gatepost.core.mime.header_lines import CONTENT_FIELD, WHOLE_HEADER, HeaderLines
from gatepost.core.mime.part import MAX_BOUNDARY, Defect, Part, Uuencoded, Visitor

# Octets of one part's header; Postfix's header_size_limit is 102400.
MAX_HEADER: Final = 64 * 1024
# Octets of a line that may be a delimiter.
MAX_LINE: Final = MAX_BOUNDARY * 4
# Delimiters after which a message is not searched on: each costs some microseconds, and no honest one has so many.
MAX_SEARCHED: Final = 10_000
# Octets of all headers together after which it is not searched on either.
MAX_HEADERS: Final = 2 * 2**20
# Lines "--...", "begin..." and "end..." that are looked at (SQL has such comments); behind them R2 and R6 are given
# up, and only boundaries that are known are looked for.
MAX_LOOKED: Final = 10_000
MAX_UUENCODED: Final = 1000
# Boundaries of one multipart, declared and found.
MAX_KNOWN: Final = 8

_UU: Final = re.compile(rb"begin(?:-base64)? [0-7]{3,4} (\S.*)$", re.DOTALL)
_NO_LINE: Final = 1 << 62


class _Mode(Enum):
    HEADER = 0
    BODY = 1


class _Level:
    """An open multipart; `began`: where its preamble begins."""

    __slots__ = ("began", "boundaries", "closed", "default", "depth", "used")

    def __init__(self, part: Part) -> None:
        self.boundaries, self.depth, self.began = list(part.boundaries), part.depth, part.body
        # RFC 2046 5.1.5: what the parts of a digest are when they do not say
        self.default = "message/rfc822" if part.type == "multipart/digest" else "text/plain"
        self.used = self.closed = False


class Walker:
    """Feed it a message in pieces, then finish(). `depth` is that of the first entity."""

    def __init__(self, visitor: Visitor, max_depth: int, max_parts: int, depth: int = 0) -> None:
        self._visitor, self._max_depth, self._max_parts = visitor, max_depth, max_parts
        self._buffer, self._at, self._inside_line = b"", 0, False
        self._levels: list[_Level] = []
        self._delimiters: dict[bytes, tuple[int, bool]] = {}
        self._known_new = False
        self._known = self._known_line = re.compile(rb"(?!)")
        self._suspect: tuple[int, bytes] | None = None
        self._looked = self._uus = self._steps = self._header_octets = 0
        self._uu: Uuencoded | None = None
        self._part: Part | None = None
        self._header = HeaderLines()
        self._mode = _Mode.HEADER
        self._stopped = False
        self.parts = 0
        self._open(depth, 0)

    # -- input

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        if not self._stopped:
            self._read(self._buffer + piece if self._buffer else piece, final=False)

    def finish(self) -> None:
        """The message is whole."""
        if self._stopped:
            return
        self._read(self._buffer, final=True)
        self._give_up_suspect()
        while self._mode is _Mode.HEADER and not self._stopped:
            self._header_ends(self._at)
        self._end_part(self._at)
        while self._levels:
            self._close_level(self._at)

    def _read(self, data: bytes, *, final: bool) -> None:
        place, end, base = 0, len(data), self._at
        dash = begin = close = -1  # the next line of each kind; looked for again only behind it
        while place < end and not self._stopped:
            if self._mode is _Mode.HEADER and not self._header.octets:
                stop = self._whole_header(data, place)
                if stop > place:
                    self._at = base + stop
                    place = stop
            if not self._inside_line and self._wants_line(data, place, final=final):
                line_end = data.find(b"\r\n", place)
                if line_end < 0 and not final and end - place <= self._longest:
                    break
                stop = end if line_end < 0 else line_end
                self._at = base + place
                self._inside_line = line_end < 0 and not final
                self._line(data[place:stop], data[place : stop + 2])
                place = min(stop + 2, end)
                continue
            if dash < place or self._known_new:
                dash, self._known_new = self._next_dash(data, place), False
            if begin < place:
                begin = _NO_LINE if self._brief else _find(data, b"\r\nbegin", place)
            if close < place and self._uu is not None:
                close = _NO_LINE if self._brief else _find(data, b"\r\nend", place)
            nearest = min(dash, begin, _NO_LINE if self._uu is None else close)
            if nearest < _NO_LINE:
                stop, self._inside_line = nearest + 2, False
            else:
                # The last octets may begin a line that matters.
                cut = -1 if final else data.rfind(b"\r", max(place, end - self._undecided))
                stop, self._inside_line = end if cut < 0 else cut, True
                if stop == place:
                    break
            self._emit(data[place:stop])
            place = stop
        self._buffer, self._at = data[place:], base + place

    def _whole_header(self, data: bytes, place: int) -> int:
        """Take a header at once, where nothing in it needs a closer look; the offset behind it."""
        found = WHOLE_HEADER.match(data, place, place + MAX_HEADER)
        if found is None or self._header_octets + len(found[0]) > MAX_HEADERS or b"\r\n--" in found[0]:
            return place
        if found[0].startswith(b"--"):
            return place
        self._header_octets += len(found[0])
        self._header.take(found[0])
        return found.end()

    def _wants_line(self, data: bytes, place: int, *, final: bool) -> bool:
        """Whether the line that begins here is looked at as a whole, as far as it can be told yet."""
        if self._mode is _Mode.HEADER or self._suspect is not None:
            return True
        if len(data) - place < self._undecided and not final:
            return True
        if self._brief:
            return self._known.match(data, place) is not None
        return data.startswith((b"--", b"begin", b"end"), place)

    @property
    def _brief(self) -> bool:
        """Whether so many lines were looked at that only known boundaries count any more."""
        return self._looked >= MAX_LOOKED

    @property
    def _undecided(self) -> int:
        """Octets by which a line that matters is told: CR LF "begin", or a boundary."""
        return MAX_BOUNDARY + 4 if self._brief else 7

    @property
    def _longest(self) -> int:
        return MAX_LINE if self._mode is _Mode.BODY and self._suspect is None else MAX_HEADER

    def _next_dash(self, data: bytes, place: int) -> int:
        if not self._brief:
            return _find(data, b"\r\n--", place)
        found = self._known_line.search(data, place)
        return _NO_LINE if found is None else found.start()

    # -- lines

    def _line(self, line: bytes, raw: bytes) -> None:
        if self._mode is _Mode.HEADER:
            self._header_line(line, raw)
        else:
            self._body_line(line, raw)

    def _header_line(self, line: bytes, raw: bytes) -> None:
        if not line:
            self._header_ends(self._at + len(raw), raw)
            return
        found = self._delimiters.get(line[2:].rstrip(b" \t")) if line.startswith(b"--") else None
        if found is not None:
            self._delimited(*found, self._at, self._at + len(raw))
            return
        header = self._header
        self._header_octets += len(raw)
        if self._header_octets > MAX_HEADERS:
            self._stop()
        elif header.octets + len(raw) > MAX_HEADER:
            self._visitor.defect(Defect.HEADER_SIZE)
            self._header_ends(self._at)
            self._line(line, raw)
        else:
            header.add(raw, self._at)

    def _body_line(self, line: bytes, raw: bytes) -> None:
        if self._suspect is not None:
            if CONTENT_FIELD.match(line):
                self._loose(*self._suspect)  # R2
                self._line(line, raw)
                return
            self._give_up_suspect()
        if len(line) <= MAX_LINE and self._is_special(line, raw):
            return
        self._emit(raw)

    def _is_special(self, line: bytes, raw: bytes) -> bool:
        """Whether the line is no part of the body, or perhaps none."""
        if line.startswith(b"--"):
            found = self._delimiters.get(line[2:].rstrip(b" \t"))  # R1
            if found is not None:
                self._delimited(*found, self._at, self._at + len(raw))
                return True
            if self._look() and self._levels and len(line) > 2:
                self._suspect = (self._at, raw)
                return True
        elif line.startswith((b"begin", b"end")) and self._look():
            self._uu_line(line, self._at + len(raw))
        return False

    def _look(self) -> bool:
        """Whether one more line is looked at."""
        if self._brief:
            return False
        self._looked += 1
        if self._brief:
            self._renew()
        return True

    def _uu_line(self, line: bytes, behind: int) -> None:
        if self._uu is not None:
            if line == b"end":
                self._end_uu(behind)
            return
        found = _UU.match(line) if self._uus < MAX_UUENCODED else None
        names = file_names(found.group(1).decode("utf-8", "replace")) if found else ()
        if names:
            self._uus += 1
            self._uu = Uuencoded(self._part, names[0], self._at)  # R6

    def _give_up_suspect(self) -> None:
        """It was a line of the body after all."""
        if self._suspect is not None:
            _, raw = self._suspect
            self._suspect = None
            self._emit(raw)

    def _emit(self, piece: bytes) -> None:
        if self._part is not None and piece:
            self._visitor.body(self._part, piece)

    # -- delimiters

    def _delimited(self, index: int, is_end: bool, at: int, behind: int) -> None:
        """A delimiter of a level stands from `at` to `behind`."""
        while self._mode is _Mode.HEADER and not self._stopped:
            self._header_ends(at)  # without a body
        self._end_part(at - 2)
        while len(self._levels) > index + 1:
            self._close_level(at)
        level = self._levels[index]
        level.used = True
        self._steps += 1
        if self._steps > MAX_SEARCHED:
            self._stop()
        elif is_end:
            level.closed = True
        else:
            if level.closed:
                self._visitor.defect(Defect.BEHIND_END)
            self._open(level.depth + 1, behind, level.default)

    def _loose(self, at: int, raw: bytes) -> None:
        """What looks like a delimiter is one: of the level whose boundary it begins with, or the innermost open."""
        self._visitor.defect(Defect.LOOSE_DELIMITER)
        self._suspect = None
        boundary = raw.removesuffix(b"\r\n")[2:].rstrip(b" \t")
        index = self._level_of(boundary)
        level = self._levels[index]
        if 0 < len(boundary) <= MAX_BOUNDARY and len(level.boundaries) < MAX_KNOWN:
            level.boundaries.append(boundary)
            self._renew()
        self._delimited(index, False, at, self._at)

    def _level_of(self, text: bytes) -> int:
        best, longest = -1, 0
        for index, level in enumerate(self._levels):
            for boundary in level.boundaries:
                if len(boundary) >= longest and text.startswith(boundary):
                    best, longest = index, len(boundary)
        if best >= 0:
            return best
        still_open = [index for index, level in enumerate(self._levels) if not level.closed]
        return still_open[-1] if still_open else len(self._levels) - 1

    def _renew(self) -> None:
        """The open boundaries have changed."""
        self._delimiters = {}
        for index, level in enumerate(self._levels):
            for boundary in level.boundaries:
                self._delimiters[boundary + b"--"] = (index, True)
                self._delimiters[boundary] = (index, False)
        if self._brief:
            known = b"|".join(map(re.escape, self._delimiters)) or rb"(?!)"
            self._known = re.compile(b"--(?:" + known + b")")
            self._known_line = re.compile(b"\r\n--(?:" + known + b")")
        self._known_new = True

    def _close_level(self, at: int) -> None:
        level = self._levels.pop()
        if level.used and not level.closed:
            self._visitor.defect(Defect.NO_END)
        elif not level.used and level.boundaries and at - level.began > 2:
            self._visitor.defect(Defect.UNUSED_BOUNDARY)
        self._renew()

    # -- entities

    def _open(self, depth: int, begin: int, default: str = "text/plain") -> None:
        self.parts += 1
        if self.parts == self._max_parts + 1:
            self._visitor.defect(Defect.TOO_MANY)
        self._part = Part(self.parts, depth, begin, default)
        self._mode, self._header = _Mode.HEADER, HeaderLines()

    def _stop(self) -> None:
        self._visitor.defect(Defect.NOT_SEARCHED)
        self._stopped = True

    def _header_ends(self, body: int, blank: bytes = b"") -> None:
        """The header of the newest part is over; its body begins at `body`."""
        part, header = self._part, self._header
        assert part is not None
        self._mode = _Mode.BODY
        part.body = body if header.junk < 0 else header.junk
        for defect in part.describe(header.fields()):
            self._visitor.defect(defect)
        if header.junk >= 0:
            self._visitor.defect(Defect.NO_BLANK_LINE)
        wanted = self._visitor.part(part)
        if not (part.is_multipart or (part.is_message and wanted)) or not self._enter(part):
            self._emit(b"".join((*header.swallowed, blank)) if header.swallowed else b"")
        elif part.is_message and header.swallowed:
            self._again((*header.swallowed, blank), header.junk)

    def _enter(self, part: Part) -> bool:
        """Go into a container; False where it is looked at as a leaf."""
        if part.depth >= self._max_depth:
            self._visitor.defect(Defect.TOO_DEEP)  # R5
            return False
        if part.is_message:
            if part.is_encoded:
                return False
            self._open(part.depth + 1, part.body)  # R4
            return True
        if part.is_encoded:
            self._visitor.defect(Defect.ENCODED)  # RFC 2045 6.4
        level = _Level(part)
        if not level.boundaries:
            self._visitor.defect(Defect.NO_BOUNDARY)
        self._levels.append(level)
        self._renew()
        self._part = None
        return True

    def _again(self, lines: tuple[bytes, ...], begin: int) -> None:
        """Lines that were taken for a header's belong to the message inside."""
        behind = self._at
        for line in lines:
            self._at = begin
            begin += len(line)
            if line and not self._stopped:
                self._line(line.removesuffix(b"\r\n"), line)
        self._at = behind

    def _end_part(self, at: int) -> None:
        part, self._part = self._part, None
        self._end_uu(at)
        if part is not None:
            part.end = max(part.begin, at)
            self._visitor.ended(part)

    def _end_uu(self, at: int) -> None:
        file, self._uu = self._uu, None
        if file is not None:
            file.end = max(file.begin, at)
            self._visitor.uuencoded(file)


def _find(data: bytes, what: bytes, place: int) -> int:
    found = data.find(what, place)
    return _NO_LINE if found < 0 else found
