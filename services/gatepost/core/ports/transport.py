"""Sending to another mail host: one connection is reused for many messages to the same host."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import msgspec

from gatepost.core.envelope import BodyType
from gatepost.core.ports.content import Body


class TlsUse(Enum):
    """Whether a connection must be encrypted (RFC 3207 4.1 leaves an MX the choice)."""

    NEVER = "Never"
    OPPORTUNISTIC = "Opportunistic"
    REQUIRE = "Require"


class HostPort(msgspec.Struct, frozen=True):
    """One host to try. `name` is for its certificate and for logs, `address` is its IP address."""

    name: str
    address: str
    port: int = 25


class TransportRecipient(msgspec.Struct, frozen=True):
    id: str
    address: str
    notify: str = ""
    orcpt: str = ""


class OutgoingMessage(msgspec.Struct, frozen=True):
    """A message for one host: `prepend` is written in front of `body`."""

    id: str
    reverse_path: str
    recipients: tuple[TransportRecipient, ...]
    prepend: bytes
    body: Body
    body_type: BodyType
    smtputf8: bool
    ret: str = ""
    envid: str = ""


class RemoteReply(msgspec.Struct, frozen=True):
    """What a remote host answered, or what we say in its place (`remote` empty: it never answered).

    `enhanced` is empty where the host gave none. `dsn`: the host was given the sender's wishes for notifications
    with the recipient (RFC 3461) and answers for them from now on.
    """

    code: int
    enhanced: str
    text: str
    remote: str = ""
    command: str = ""
    dsn: bool = False


class HostFailure(Exception):
    """This host cannot take any message now (connect, greeting, EHLO, TLS); try the next one."""

    def __init__(self, reply: RemoteReply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class Transport(Protocol):
    """Sends over pooled connections. Every wait has the limit of RFC 5321 4.5.3.2 or a shorter setting."""

    async def send(self, host: HostPort, message: OutgoingMessage, tls: TlsUse, helo: str) -> Sequence[RemoteReply]:
        """Send to one host and return a reply per recipient, in order. Raises HostFailure.

        When the connection breaks after the final dot was sent, the recipients that had been accepted get a
        4xx with an unknown outcome (text says so): the message may then arrive twice (RFC 5321 4.1.1.4).
        """

    async def close(self) -> None: ...
