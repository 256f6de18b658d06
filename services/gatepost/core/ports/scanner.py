"""Programs beside the gateway that look into a message: rspamd for spam, clamd for viruses.

Implemented by backends/scanner_rspamd, backends/scanner_clamd and a table for tests (backends/scanner_table).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import Enum
from typing import Protocol

import msgspec


class ScannerKind(Enum):
    RSPAMD = "Rspamd"
    CLAMD = "Clamd"


class ScannerUnavailable(Exception):
    """No verdict: the scanner is away, breaks off, or says what nobody understands. Temporary."""


class ScannerRefused(Exception):
    """The scanner is there and does not judge this message: it is too large for it, or an error of its own.

    One that breaks off while the message comes may be ScannerUnavailable as well: its words can be lost with the
    connection.
    """


class Advice(Enum):
    """What a scanner says of a message. All but the last two are rspamd's actions, by their names."""

    NO_ACTION = "no action"
    GREYLIST = "greylist"
    ADD_HEADER = "add header"
    REWRITE_SUBJECT = "rewrite subject"
    SOFT_REJECT = "soft reject"
    QUARANTINE = "quarantine"
    DISCARD = "discard"
    REJECT = "reject"
    OTHER = "other"  # an action that somebody has added to rspamd
    FOUND = "found"  # clamd knows the malware


class ScanResult(msgspec.Struct, frozen=True):
    """`names` are signatures or symbols, the weightiest first, in the scanner's own words; `score` and `required`
    are rspamd's, 0 where there are none."""

    advice: Advice
    names: tuple[str, ...] = ()
    score: float = 0.0
    required: float = 0.0


class ScanFacts(msgspec.Struct, frozen=True):
    """What a scanner may know of a message beside its content; never a password. `login` empty: none."""

    queue_id: str
    reverse_path: str
    recipients: tuple[str, ...]
    client: str
    client_name: str
    helo: str
    login: str


class ScannerAddress(msgspec.Struct, frozen=True):
    """Which scanner: `address` is http://HOST:PORT or https://HOST:PORT for rspamd, tcp://HOST:PORT or unix:/PATH
    for clamd. `settings` is the id of a set of settings at rspamd, empty for its default."""

    kind: ScannerKind
    address: str
    settings: str = ""


class Scanners(Protocol):
    """All scanners of a process, by their addresses; nothing is opened before it is asked for."""

    async def scan(self, where: ScannerAddress, facts: ScanFacts, pieces: AsyncIterator[bytes]) -> ScanResult:
        """Send the pieces as they come and return what the scanner says of all of them.

        The next piece is taken when the scanner has room for it. It may take as long as the pieces need: the
        caller sets the limit, and may cancel.
        Raises ScannerUnavailable, ScannerRefused.
        """

    async def close(self) -> None:
        """Close what is kept open."""
