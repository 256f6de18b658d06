"""Header fields in canonical form (RFC 6376 3.4.1 simple, 3.4.2 relaxed), and a signature without its value."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from gatepost.core.headers import Field


class Canonical(enum.StrEnum):
    SIMPLE = "simple"
    RELAXED = "relaxed"


def canonical_field(field: Field, how: Canonical) -> bytes:
    """Return the field as it is signed, without the last CR LF."""
    if how is Canonical.SIMPLE:
        return field.raw
    return field.name + b":" + _relaxed(field.value)


def canonical_signature(field: Field, how: Canonical) -> bytes:
    """The signature's own field as it is signed: the value of b= taken out with its white space (RFC 6376 3.7)."""
    emptied = _without_b(field)
    return field.raw[: field.colon] + emptied if how is Canonical.SIMPLE else field.name + b":" + _relaxed(emptied)


def _relaxed(value: bytes) -> bytes:
    """Unfold, let each run of white space be one space, and none at either end."""
    return single_spaced(value.replace(b"\r\n", b"")).strip(b" ")


def single_spaced(text: bytes) -> bytes:
    """Replace every run of SP and HTAB by one SP. Each round halves the runs, so that the work is linear."""
    text = text.replace(b"\t", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text


def _without_b(field: Field) -> bytes:
    parts = field.value.split(b";")
    for index, part in enumerate(parts):
        name, equals, _ = part.partition(b"=")
        if equals and name.strip(b" \t\r\n") == b"b":
            parts[index] = name + equals
    return b";".join(parts)


class CanonicalHeader:
    """The fields of one message, each put into canonical form at most once however many signatures ask for it."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self._places: dict[bytes, list[int]] = {}
        for place, field in enumerate(fields):
            self._places.setdefault(field.name, []).append(place)
        self._fields = fields
        self._forms: dict[tuple[int, Canonical], bytes] = {}

    def signed(self, names: Iterable[str], how: Canonical, own: Field | None = None) -> bytes:
        """Return the named fields, each with CR LF: the last of a name first, then the next above it.

        A name without a further field stands for none (RFC 6376 5.4.2), so that adding one breaks the signature.
        `own`, the signature itself, is never among them (3.5 h=).
        """
        left = {} if own is None else {own.name: self._others(own)}
        chosen: list[bytes] = []
        for text in names:
            name = text.lower().encode("utf-8", "replace")
            places = left.get(name)
            if places is None:
                places = left[name] = list(self._places.get(name, ()))
            if places:
                chosen.append(self._form(places.pop(), how) + b"\r\n")
        return b"".join(chosen)

    def _others(self, own: Field) -> list[int]:
        return [place for place in self._places.get(own.name, ()) if self._fields[place] is not own]

    def _form(self, place: int, how: Canonical) -> bytes:
        known = self._forms.get((place, how))
        if known is None:
            known = self._forms[place, how] = canonical_field(self._fields[place], how)
        return known
