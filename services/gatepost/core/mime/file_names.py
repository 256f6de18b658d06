"""File names of parts: every name that some program might give the file, and their extensions.

Names come from the sender, so they are cleaned of what only serves to deceive: paths, NULs, control characters and
those that turn the direction of writing (U+202E), full-width letters, dots and blanks at the end.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final

from gatepost.core.headers import Field
from gatepost.core.mime.parameters import parameters, unfolded

# Characters of a name that are looked at, from its end; file systems take 255.
MAX_NAME: Final = 1024
MAX_SHOWN: Final = 80
# Different names that one part may have; programs differ in which they take.
MAX_NAMES: Final = 32

_NAMING: Final = frozenset({"name", "filename"})
# What stands around a name by mistake, or because Windows takes no such characters and drops them.
_AROUND: Final = " \t\"'<>|?*"
_BEHIND: Final = _AROUND + "."
# Format, control, surrogate and private characters: invisible, or not what they look like.
_INVISIBLE: Final = frozenset({"Cf", "Cc", "Cs", "Co"})


def names_of(fields: Iterable[Field]) -> tuple[str, ...]:
    """Return all names that the Content fields of a part give its file, cleaned, each once."""
    found: dict[str, None] = {}
    for field in fields:
        if field.name.startswith(b"content-"):
            for name, value in parameters(unfolded(field.value)):
                if name in _NAMING and len(found) < MAX_NAMES:
                    found.update(dict.fromkeys(file_names(value)))
    return tuple(found)


def file_names(value: str) -> tuple[str, ...]:
    """Return the names that programs make of one: all of it, and what stands before a NUL (C ends there)."""
    whole = cleaned(value)
    if "\0" not in value:
        return (whole,) if whole else ()
    return tuple(dict.fromkeys(name for name in (whole, cleaned(value.partition("\0")[0])) if name))


def cleaned(name: str) -> str:
    """Return a name without path, invisible characters, and blanks and dots at its end (which Windows drops)."""
    name = name[-MAX_NAME:]
    if not (name.isascii() and name.isprintable()):
        name = unicodedata.normalize("NFKC", name)
        name = "".join(c for c in name if unicodedata.category(c) not in _INVISIBLE)
    return name.replace("\\", "/").rpartition("/")[2].strip(_AROUND).rstrip(_BEHIND)


def extension(name: str) -> str:
    """Return the last extension of a cleaned name in lower case without its dot, empty where there is none.

    Of "a.exe:stream" (NTFS) it is exe.
    """
    return name.partition(":")[0].rstrip(". ").rpartition(".")[2].casefold().strip() if "." in name else ""


def shown(name: str) -> str:
    """A name for people: printable, on one line, and short; its end stays, for there is the extension."""
    text = "".join(c if c.isprintable() else "?" for c in name)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 30]}...{text[-27:]}"
