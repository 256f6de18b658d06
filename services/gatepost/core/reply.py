"""SMTP replies: one value with the code, the enhanced code, the public text and the name of the check.

Sources: RFC 5321 4.2 (replies), RFC 2034 4 and RFC 3463 (enhanced status codes). The texts here are all
that a client ever reads; no exception's text gets into a reply.
"""

from __future__ import annotations

import msgspec

MAX_REPLY_LINE = 512  # RFC 5321 4.5.3.1.5, with code and CRLF


class Reply(msgspec.Struct, frozen=True):
    """A reply to a client. `enhanced` is empty where RFC 2034 4 has none (greeting, EHLO, 354).

    `check` names what decided, and stands in the text of every refusal, so that its reader can ask about it.
    """

    code: int
    enhanced: str
    text: str
    check: str = ""

    @property
    def positive(self) -> bool:
        return self.code < 400

    @property
    def temporary(self) -> bool:
        return 400 <= self.code < 500

    def encode(self, session_id: str = "") -> bytes:
        """Return the reply's bytes with CRLF: every refusal as `code enhanced-code text (check) id`."""
        if self.code >= 400 and self.check:
            tail = f" ({self.check}) {session_id}" if session_id else f" ({self.check})"
        else:
            tail = ""
        lines = self.text.split("\n")
        prefix = f"{self.enhanced} " if self.enhanced else ""
        last = len(lines) - 1
        out = []
        for number, line in enumerate(lines):
            separator = " " if number == last else "-"
            body = f"{prefix}{line}{tail if number == last else ''}"
            out.append(f"{self.code}{separator}{_printable(body)[: MAX_REPLY_LINE - 6]}\r\n")
        return "".join(out).encode("utf-8")


def _printable(text: str) -> str:
    """Drop what could break a reply line: every control character."""
    return text if text.isprintable() else "".join(c for c in text if c.isprintable())
