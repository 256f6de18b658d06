"""EHLO and HELO (RFC 5321 4.1.1.1, 4.1.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatepost.core.smtp_commands import parse_helo

if TYPE_CHECKING:
    from gatepost.edge.session import Session


def ehlo(session: Session, argument: bytes) -> None:
    if not _greet(session, argument, extended=True):
        return
    session.write(
        session.listener.ehlo(
            session.server.hostname,
            session.table,
            encrypted=bool(session.tls),
            authenticated=session.account is not None,
            passes_on=session.may_pass_on,
        )
    )


def helo(session: Session, argument: bytes) -> None:
    if _greet(session, argument, extended=False):
        session.write(session.server.helo_reply)


def _greet(session: Session, argument: bytes, *, extended: bool) -> bool:
    name = parse_helo(argument)
    if not session.refresh_policy():
        return False
    session.helo, session.extended = name, extended
    if session.verdicts is not None:
        session.verdicts.greeted(name)
    session.end_transaction()  # RFC 5321 4.1.4: as if RSET had been given
    return True
