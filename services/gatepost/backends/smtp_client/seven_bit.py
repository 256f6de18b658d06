"""8-bit mail for a host without 8BITMIME: encoded where that keeps its meaning (RFC 6152 3, core/downgrade.py)."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import structlog

from gatepost.backends.smtp_client.commands import Extensions
from gatepost.core.downgrade import NotConvertible, seven_bit
from gatepost.core.envelope import BodyType
from gatepost.core.memory_body import MemoryBody
from gatepost.core.ports.transport import OutgoingMessage, RemoteReply

# Converting needs the message several times over in memory; larger ones fail as what cannot be converted.
MAX_CONVERTED: Final = 16 * 1024 * 1024

_UNREADABLE: Final = RemoteReply(451, "4.3.0", "The content cannot be read now")

_log = structlog.get_logger("gatepost.smtp_client")


async def fitted(message: OutgoingMessage, extensions: Extensions) -> OutgoingMessage | RemoteReply:
    """The message as this host can take it: itself, or its 7-bit form; itself too where there is none.

    A reply when its content cannot be read. Signatures over the body (DKIM) do not survive the conversion.
    """
    if message.body_type is not BodyType.EIGHT_BIT_MIME or "8BITMIME" in extensions:
        return message
    if message.body.size > MAX_CONVERTED or not message.prepend.isascii():
        return message
    try:
        content = message.body.whole()
    except Exception:
        _log.exception("body_unreadable", id=message.id)
        return _UNREADABLE
    try:
        converted = await asyncio.to_thread(seven_bit, content)
    except NotConvertible as reason:
        _log.info("not_converted", id=message.id, reason=str(reason))
        return message
    return msgspec.structs.replace(message, body=MemoryBody(converted), body_type=BodyType.SEVEN_BIT)
