"""The commands that change little: RSET NOOP QUIT VRFY HELP, and those that do not exist here (RFC 5321 4.1.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatepost.core import smtp_replies as say
from gatepost.core.smtp_commands import CommandError

if TYPE_CHECKING:
    from gatepost.edge.session import Session

OK: Final = b"250 2.0.0 Ok\r\n"
BYE: Final = b"221 2.0.0 Bye\r\n"


def rset(session: Session, argument: bytes) -> None:
    if argument:
        raise CommandError(say.NO_ARGUMENT)
    session.end_transaction()
    session.write(OK)


def noop(session: Session, argument: bytes) -> None:
    """RFC 5321 4.1.1.9: an argument is ignored."""
    session.write(OK)


def quit_(session: Session, argument: bytes) -> None:
    if argument:
        raise CommandError(say.NO_ARGUMENT)
    session.discard_input()
    session.write(BYE)
    session.hang_up()


def vrfy(session: Session, argument: bytes) -> None:
    if not argument:
        raise CommandError(say.ARGUMENT_NEEDED)
    session.write(say.VRFY.encode())


def help_(session: Session, argument: bytes) -> None:
    session.write(say.HELP.encode())


def not_implemented(session: Session, argument: bytes) -> None:
    raise CommandError(say.NOT_IMPLEMENTED)
