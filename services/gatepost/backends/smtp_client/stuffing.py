"""The content on the wire: dots doubled at the start of lines, whatever pieces it comes in (RFC 5321 4.5.2)."""

from __future__ import annotations


class BareNewline(Exception):
    """The content has a CR or LF that stands alone.

    RFC 5321 2.3.8 forbids sending it, and a receiver that takes it for a line end could be made to see another
    message inside this one.
    """


class DotStuffer:
    """Takes a content in pieces. `finish` gives the end of data (RFC 5321 4.1.1.4)."""

    def __init__(self) -> None:
        # The last octets of what went before; the content begins at the start of a line.
        self._tail = b"\r\n"

    def feed(self, piece: bytes) -> bytes:
        """Return what to send for a piece. Raises BareNewline; what was returned before stays valid."""
        joined = self._tail + piece
        self._check(joined)
        # A tail is at most CRLF, so nothing within it can be replaced.
        sent = joined.replace(b"\r\n.", b"\r\n..")[len(self._tail) :]
        self._tail = joined[-2:]
        return sent

    def finish(self) -> bytes:
        """Return the final line with its dot, after a CRLF where the content had none at its end."""
        if self._tail.endswith(b"\r"):
            raise BareNewline
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"

    def _check(self, joined: bytes) -> None:
        pairs = joined.count(b"\r\n")
        lines, returns = joined.count(b"\n"), joined.count(b"\r")
        # A CR at the end may get its LF with the next piece; an LF at the start had its CR checked before.
        returns -= joined.endswith(b"\r")
        lines -= joined.startswith(b"\n")
        if pairs != lines or pairs != returns:
            raise BareNewline
