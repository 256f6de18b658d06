"""The time limits and counts of a client, from settings; and which of the two protocols it speaks."""

from __future__ import annotations

from enum import Enum

import msgspec

from gatepost.core.manifest.quantities import seconds
from gatepost.core.manifest.settings import LmtpSettings, RelaySettings


class Dialect(Enum):
    SMTP = "SMTP"
    LMTP = "LMTP"  # RFC 2033: LHLO, and a reply for each recipient after the content


class Limits(msgspec.Struct, frozen=True):
    """Times in seconds; RFC 5321 4.5.3.2 gives the least values for the public Internet.

    `command`: greeting, EHLO, MAIL, RCPT, RSET (5 min); `data_start`: from DATA to 354 (2 min);
    `data_block`: until a piece of content was taken (3 min); `data_end`: after the final dot (10 min).
    """

    connect: float
    command: float
    data_start: float
    data_block: float
    data_end: float
    idle: float
    messages_per_connection: int
    connections_per_host: int


def relay_limits(settings: RelaySettings) -> Limits:
    command = seconds(settings.command_timeout)
    return Limits(
        connect=seconds(settings.connect_timeout),
        command=command,
        data_start=min(command, 120.0),
        data_block=min(command, 180.0),
        data_end=2 * command,
        idle=seconds(settings.idle_timeout),
        messages_per_connection=settings.messages_per_connection,
        connections_per_host=settings.connections_per_site,
    )


def lmtp_limits(settings: LmtpSettings) -> Limits:
    limit = seconds(settings.timeout)
    # A store of one's own may be asked on one connection for long; Dovecot closes after 5 min of silence.
    return Limits(
        connect=limit,
        command=limit,
        data_start=limit,
        data_block=limit,
        data_end=2 * limit,
        idle=30.0,
        messages_per_connection=1000,
        connections_per_host=settings.connections,
    )
