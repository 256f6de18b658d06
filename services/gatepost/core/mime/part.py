"""What the walker tells of a message: its parts, and how it is broken."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from gatepost.core.headers import Field
from gatepost.core.mime.file_names import names_of
from gatepost.core.mime.parameters import media_type, parameters, unfolded

# RFC 2046 5.1.1 allows 70; some programs write more.
MAX_BOUNDARY = 200
# Boundaries that one header may name: programs differ in which they take.
MAX_ALTERNATIVES = 4


class Defect(Enum):
    """How MIME is broken. The value stands in events."""

    NO_BOUNDARY = "multipart without a boundary"
    UNUSED_BOUNDARY = "the boundary never comes"
    LOOSE_DELIMITER = "a delimiter that was not declared"
    NO_END = "no final delimiter"
    BEHIND_END = "parts behind the final delimiter"
    NO_BLANK_LINE = "a header that ends without an empty line"
    HEADER_SIZE = "the header of a part is too large"
    AMBIGUOUS = "two types or encodings of one part"
    ENCODED = "a multipart that is encoded as a whole"
    TOO_DEEP = "parts within parts too deeply"
    TOO_MANY = "too many parts"
    NOT_SEARCHED = "so many parts that the rest was not looked at"


class Part:
    """One entity. Offsets are octets from the begin of what the walker reads.

    `begin` is where its header begins, `body` its body, and `end` is behind its last octet, before the CR LF that
    belongs to the delimiter (RFC 2046 5.1.1); both are known when they are told. `names` are cleaned file names.
    """

    __slots__ = ("begin", "body", "depth", "encoding", "end", "fields", "names", "number", "type", "types")

    def __init__(self, number: int, depth: int, begin: int, default: str) -> None:
        self.number, self.depth, self.begin = number, depth, begin
        self.body = self.end = begin
        self.fields: tuple[Field, ...] = ()
        self.names: tuple[str, ...] = ()
        self.types: tuple[str, ...] = ()
        self.type = default  # RFC 2045 5.2
        self.encoding = ""

    def describe(self, fields: tuple[Field, ...]) -> Sequence[Defect]:
        """Take over what the header says, and return what it says twice."""
        self.fields = fields
        self.names = names_of(fields)
        self.types = tuple(dict.fromkeys(media_type(unfolded(one.value)) for one in self._named(b"content-type")))
        encodings = {media_type(unfolded(one.value)) for one in self._named(b"content-transfer-encoding")}
        self.encoding = "base64" if "base64" in encodings else next(iter(encodings), "")
        if self.types:
            containers = [one for one in self.types if one.startswith(("multipart/", "message/"))]
            self.type = (containers or self.types)[0] or self.type
        return (Defect.AMBIGUOUS,) if len(self.types) > 1 or len(encodings) > 1 else ()

    def _named(self, name: bytes) -> list[Field]:
        return [field for field in self.fields if field.name == name]

    def content_parameters(self) -> list[tuple[str, str]]:
        """All parameters of all its Content-Type fields."""
        return [one for field in self._named(b"content-type") for one in parameters(unfolded(field.value))]

    @property
    def boundaries(self) -> tuple[bytes, ...]:
        """Of a multipart: without blanks at the end, which RFC 2046 5.1.1 forbids and readers drop."""
        found = {
            value.rstrip(" \t")[:MAX_BOUNDARY].encode("utf-8", "replace")
            for name, value in self.content_parameters()
            if name == "boundary"
        }
        return tuple(sorted(found - {b""}))[:MAX_ALTERNATIVES]

    @property
    def is_multipart(self) -> bool:
        return self.type.startswith("multipart/")

    @property
    def is_message(self) -> bool:
        """Whether its body is a message of its own (RFC 2046 5.2.1, RFC 6532 3.7)."""
        return self.type in ("message/rfc822", "message/global", "message/news")

    @property
    def is_text(self) -> bool:
        return self.type.startswith("text/")

    @property
    def is_encoded(self) -> bool:
        return self.encoding in ("base64", "quoted-printable")


class Uuencoded:
    """A file that stands in a text between `begin 644 name` and `end`; offsets as of Part."""

    __slots__ = ("begin", "end", "name", "part")

    def __init__(self, part: Part | None, name: str, begin: int) -> None:
        self.part, self.name, self.begin, self.end = part, name, begin, begin


class Visitor(Protocol):
    """Hears of everything in the order in which it stands. Must not raise."""

    def part(self, part: Part) -> bool:
        """A header is whole: of a container, or of a leaf whose body follows.

        False: a message inside is not entered, and its octets are told as a leaf's.
        """

    def body(self, part: Part, piece: bytes) -> None:
        """The next octets of a leaf's body, still encoded."""

    def ended(self, part: Part) -> None:
        """The leaf's body is whole."""

    def uuencoded(self, file: Uuencoded) -> None:
        """A file in a text has come to its end."""

    def defect(self, defect: Defect) -> None:
        """Something is broken; may be told more than once."""
