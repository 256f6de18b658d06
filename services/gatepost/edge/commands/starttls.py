"""STARTTLS (RFC 3207): what was said in clear is forgotten, and what was said ahead ends the session."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gatepost.core import smtp_replies as say
from gatepost.core.smtp_commands import CommandError
from gatepost.edge.tls import HANDSHAKE_TIMEOUT, SHUTDOWN_TIMEOUT

if TYPE_CHECKING:
    from gatepost.edge.session import Session

READY: Final = b"220 2.0.0 Ready to start TLS\r\n"


def starttls(session: Session, argument: bytes) -> None:
    if argument:
        raise CommandError(say.NO_ARGUMENT)
    if session.tls:
        raise CommandError(say.TLS_ALREADY)
    if session.listener.tls is None or not session.listener.offers_starttls(session.table):
        raise CommandError(say.TLS_NOT_AVAILABLE)
    if not session.extended:
        raise CommandError(say.AUTH_NEEDS_EHLO)
    if session.transaction is not None or session.account is not None:
        raise CommandError(say.TLS_OUT_OF_PLACE)
    session.work(_begin, session)


async def _begin(session: Session) -> None:
    if session.pending:
        session.goodbye(say.TLS_INJECTION)  # RFC 3207 6; CVE-2011-0411
        return
    context = session.listener.tls_for(session.client)
    assert context is not None  # starttls() has looked
    session.write(READY)
    session.flush()
    try:
        transport = await session.loop.start_tls(
            session.transport,
            session,
            context,
            server_side=True,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
            ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
        )
    except (TimeoutError, OSError) as error:
        session.listener.handshake_failed(session.client, error)
        _lose(session)
        return
    except asyncio.CancelledError:
        _lose(session)
        raise
    if transport is None or session.lost:
        return
    session.transport = transport
    session.encrypted(transport.get_extra_info("ssl_object"))
    # RFC 3207 4.2: nothing that the client said before counts any more.
    session.helo, session.extended = "", False


def _lose(session: Session) -> None:
    """During the handshake the connection belongs to the TLS protocol, which tells nobody that it is lost."""
    session.abort()
    session.connection_lost(None)
