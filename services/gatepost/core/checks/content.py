"""Check of a message as a whole at the end of DATA: faults that the reader found, and mail loops."""

from __future__ import annotations

from typing import Final

from gatepost.core.data_reader import DataReader, Fault
from gatepost.core.received import count_received
from gatepost.core.reply import Reply
from gatepost.core.smtp_replies import (
    BARE_NEWLINE_IN_CONTENT,
    HEADER_TOO_LARGE,
    LOOP,
    NUL_IN_CONTENT,
    TOO_LARGE,
)

_REPLIES: Final = {
    Fault.BARE_NEWLINE: BARE_NEWLINE_IN_CONTENT,
    Fault.NUL: NUL_IN_CONTENT,
    Fault.SIZE: TOO_LARGE,
    Fault.HEADER_SIZE: HEADER_TOO_LARGE,
}


def evaluate(reader: DataReader, max_received: int) -> Reply | None:
    """Return the refusal or None, for a reader that is finished."""
    if reader.fault is not None:
        return _REPLIES[reader.fault]
    if count_received(reader.header) > max_received:
        return LOOP
    return None
