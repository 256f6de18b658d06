"""Where something listens, as users write it: HOST:PORT, an IPv6 host in brackets."""

from __future__ import annotations


class EndpointError(ValueError):
    """The text is no HOST:PORT; the message says so."""


def port_number(text: str, *, lowest: int = 1) -> int | None:
    """Return the port that the text is, `lowest` to 65535, or None."""
    number = int(text) if text.isascii() and text.isdigit() else -1
    return number if lowest <= number <= 65535 else None


def parse_endpoint(text: str, *, lowest: int = 0) -> tuple[str, int]:
    """Return host (without brackets) and port, `lowest` to 65535; 0 means any free one. Raises EndpointError."""
    host, colon, port = text.rpartition(":")
    number = port_number(port, lowest=lowest)
    if not colon or not host or number is None:
        raise EndpointError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), number
