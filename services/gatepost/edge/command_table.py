"""The commands: verb, function, and what holds for each before it is called. A command is one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from gatepost.core.smtp_commands import MAX_AUTH_LINE, MAX_COMMAND_LINE, MAX_MAIL_LINE, MAX_RCPT_LINE
from gatepost.core.xclient import MAX_XCLIENT_LINE
from gatepost.edge.commands import auth, bdat, data, hello, mail, rcpt, simple, starttls, xclient

if TYPE_CHECKING:
    from gatepost.edge.session import Session


class Command(NamedTuple):
    """`limit` is the longest line in octets with CR LF (RFC 5321 4.5.3.1.4).

    `alone`: nothing may follow it in the same group, since the client has to know the answer (RFC 2920 3.1; for
    HELO because it promises no pipelining, for AUTH and STARTTLS because the connection changes). `junk`: it brings
    no mail on, so a policy limits how many of them come between two messages.
    """

    function: Callable[[Session, bytes], None]
    limit: int = MAX_COMMAND_LINE
    alone: bool = False
    junk: bool = False


QUIT: Final = Command(simple.quit_)

COMMANDS: Final[dict[bytes, Command]] = {
    b"EHLO": Command(hello.ehlo, alone=True, junk=True),
    b"HELO": Command(hello.helo, alone=True, junk=True),
    b"MAIL": Command(mail.mail, MAX_MAIL_LINE),
    b"RCPT": Command(rcpt.rcpt, MAX_RCPT_LINE),
    b"DATA": Command(data.data, alone=True),
    b"RSET": Command(simple.rset, junk=True),
    b"NOOP": Command(simple.noop, junk=True),
    b"QUIT": QUIT,
    b"VRFY": Command(simple.vrfy, junk=True),
    b"HELP": Command(simple.help_, junk=True),
    b"EXPN": Command(simple.not_implemented),
    b"BDAT": Command(bdat.bdat),
    b"STARTTLS": Command(starttls.starttls),  # it looks for what follows by itself
    b"XCLIENT": Command(xclient.xclient, MAX_XCLIENT_LINE, alone=True, junk=True),
    b"AUTH": Command(auth.auth, MAX_AUTH_LINE, alone=True),
}

# What browsers begin with when a page makes them talk to port 25.
FOREIGN_VERBS: Final = frozenset({b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"CONNECT", b"PATCH"})
