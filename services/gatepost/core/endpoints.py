"""Where something listens, as users write it: HOST:PORT, an IPv6 host in brackets."""

from __future__ import annotations


class EndpointError(ValueError):
    """The text is no HOST:PORT; the message says so."""


def parse_endpoint(text: str, *, lowest: int = 0) -> tuple[str, int]:
    """Return host (without brackets) and port, `lowest` to 65535; 0 means any free one. Raises EndpointError."""
    host, colon, port = text.rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() else -1
    if not colon or not host or not lowest <= number <= 65535:
        raise EndpointError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), number
