"""The paths of MAIL and RCPT (RFC 5321 4.1.2):

    Reverse-path = Path / "<>"
    Path         = "<" [ A-d-l ":" ] Mailbox ">"

The source route (A-d-l) is recognised and kept apart, so that a policy can refuse it; RFC 5321 C says to
ignore it. Limit: 256 octets (4.5.3.1.3).
"""

from __future__ import annotations

import re
from typing import Final

from gatepost.core.address import Address, AddressError, Path, parse_address

MAX_PATH: Final = 256

_SOURCE_ROUTE = re.compile(r"(@[^\s,:@<>]+(?:,@[^\s,:@<>]+)*):")


def parse_path(text: str) -> Path:
    """Parse a Path with its angle brackets, "<>" included. Raises AddressError.

    `<postmaster>` without a domain (RFC 5321 4.1.1.3) gives an Address with an empty domain.
    """
    if len(text.encode("utf-8", "surrogateescape")) > MAX_PATH:
        raise AddressError(f"the path is longer than {MAX_PATH} octets")
    if not (text.startswith("<") and text.endswith(">")):
        raise AddressError("angle brackets are missing")
    inner = text[1:-1]
    if not inner:
        return Path(None)
    route = ""
    if inner.startswith("@"):
        found = _SOURCE_ROUTE.match(inner)
        if found is None:
            raise AddressError("the source route is not valid")
        route = found.group(1)
        inner = inner[found.end() :]
    if inner.lower() == "postmaster":
        return Path(Address(inner.lower(), ""), route)
    return Path(parse_address(inner), route)
