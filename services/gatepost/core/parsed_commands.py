"""What MAIL and RCPT say, as smtp_commands.py reads them."""

from __future__ import annotations

import msgspec

from gatepost.core.address import Address
from gatepost.core.envelope import BodyType


class MailCommand(msgspec.Struct, frozen=True):
    """A parsed MAIL. `address` None is the null sender; `size` 0: not declared; `envid` byte for byte."""

    address: Address | None
    source_route: str = ""
    size: int = 0
    body: BodyType = BodyType.SEVEN_BIT
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


class RcptCommand(msgspec.Struct, frozen=True):
    """A parsed RCPT. `named` is the mailbox as the client wrote it; `notify` and `orcpt` byte for byte."""

    address: Address
    named: str
    source_route: str = ""
    notify: str = ""
    orcpt: str = ""
