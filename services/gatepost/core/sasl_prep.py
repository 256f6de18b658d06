"""SASLprep (RFC 4013): names and passwords in the form in which two sides can compare them."""

from __future__ import annotations

import stringprep
import unicodedata
from typing import Final


class PrepError(ValueError):
    """The text holds what no name or password may. It has no text itself, so that no secret can be in it."""


# RFC 4013 2.3: ASCII spaces are C.1.1 and stay; C.1.2 was mapped to them before.
_PROHIBITED: Final = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str) -> str:
    """Return the prepared form; code points that Unicode 3.2 did not know stay (a query, RFC 3454 7).

    Raises PrepError for control characters, mixed directions (RFC 3454 6) and a text of which nothing is left.
    """
    if text.isascii() and text.isprintable() and text:
        return text
    # RFC 4013 2.1: other spaces become a space, "commonly mapped to nothing" disappears.
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    prepared = unicodedata.normalize("NFKC", mapped)  # RFC 4013 2.2
    if not prepared or any(test(c) for c in prepared for test in _PROHIBITED):
        raise PrepError
    if any(map(stringprep.in_table_d1, prepared)) and (
        any(map(stringprep.in_table_d2, prepared))
        or not stringprep.in_table_d1(prepared[0])
        or not stringprep.in_table_d1(prepared[-1])
    ):
        raise PrepError
    return prepared
