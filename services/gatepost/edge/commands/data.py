"""DATA: reserves memory for the body, then lets the content come (RFC 5321 3.3, 4.1.1.4)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gatepost.core import smtp_replies as say
from gatepost.core.smtp_commands import CommandError
from gatepost.edge.body import reservation
from gatepost.edge.transaction import Transaction

if TYPE_CHECKING:
    from gatepost.edge.session import Session

# RFC 5321 4.5.3.2.4: a client waits two minutes for 354.
MEMORY_TIMEOUT: Final = 100.0


def data(session: Session, argument: bytes) -> None:
    transaction = session.transaction
    if argument:
        raise CommandError(say.NO_ARGUMENT)
    if transaction is None:
        raise CommandError(say.MAIL_FIRST if session.helo else say.HELO_FIRST)
    if not transaction.recipients and not transaction.discarded:
        raise CommandError(say.RCPT_FIRST)
    if session.incoming is not None:
        raise CommandError(say.BDAT_BEGUN)  # RFC 3030 2
    server = session.server
    needed = reservation(transaction.mail.size)
    if server.memory.try_reserve(needed):
        session.begin_content(transaction, needed)
    else:
        session.work(_wait_for_memory, session, transaction, needed)


async def _wait_for_memory(session: Session, transaction: Transaction, needed: int) -> None:
    session.flush()
    memory = session.server.memory
    try:
        async with asyncio.timeout(MEMORY_TIMEOUT):
            await memory.reserve(needed)
    except TimeoutError:
        session.refuse(say.BUSY)
        return
    if session.pending:
        memory.release(needed)
        session.out_of_step()  # content came without waiting for 354
        return
    session.begin_content(transaction, needed)
