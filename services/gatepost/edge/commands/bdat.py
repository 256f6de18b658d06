"""BDAT: the content in chunks of declared size (RFC 3030 2, 3). BINARYMIME is not offered, so lines are judged.

The octets of a chunk follow the command whatever is answered, so a chunk that is refused is read and dropped: not
one of its octets may be taken for a command. After a refusal the message is over, and later chunks of it get 503.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from gatepost.core import smtp_replies as say
from gatepost.core.checks import content as content_check
from gatepost.core.data_reader import ChunkReader
from gatepost.core.reply import Reply
from gatepost.core.smtp_commands import CommandError
from gatepost.edge.body import reservation
from gatepost.edge.commands.data import MEMORY_TIMEOUT
from gatepost.edge.content import Incoming, Pace
from gatepost.edge.transaction import Transaction

if TYPE_CHECKING:
    from gatepost.edge.session import Session

# No message is half as large (core/compile/policy): who declares more cannot mean a chunk of one.
MAX_CHUNK: Final = 300 * 2**20

# bdat-cmd = "BDAT" SP chunk-size [ SP end-marker ] CR LF; chunk-size = 1*DIGIT
_BDAT = re.compile(rb"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE)


class Chunks(Incoming):
    """A message that comes by BDAT. `chunk` is its reader, of the chunk that comes."""

    def __init__(self, session: Session, transaction: Transaction, reserved: int) -> None:
        policy = transaction.policy
        reader = ChunkReader(
            transaction.size_limit, policy.header_bytes, normalize=session.normalizes(transaction.table)
        )
        super().__init__(session, transaction, reserved, reader)
        self.chunk = reader

    def ended(self) -> None:
        """A chunk is whole."""
        session, reader = self.session, self.chunk
        if reader.complete:
            session.end_of_content()
            return
        refusal = content_check.evaluate(reader, self.transaction.policy.max_received)
        if refusal is not None:
            session.refuse(refusal)
            session.end_transaction()
        else:
            session.write(b"250 2.0.0 %d octets received\r\n" % reader.declared)


class Dropped:
    """A chunk that is read for nothing, and answered then."""

    behind = False

    def __init__(self, session: Session, octets: int, reply: Reply) -> None:
        self.pace = Pace(session)
        self.reader = ChunkReader(0, 0)
        self.reader.expect(octets, last=True)
        self._session, self._reply = session, reply

    def take(self, piece: bytes) -> None: ...

    def ended(self) -> None:
        self._session.incoming = None
        self._session.refuse(self._reply)

    def close(self) -> None: ...


def bdat(session: Session, argument: bytes) -> None:
    found = _BDAT.fullmatch(argument)
    if found is None:
        # Where the chunk ends, if there is one, is not known.
        session.refuse(say.BDAT_SYNTAX)
        session.goodbye(say.OUT_OF_STEP)
        return
    octets, last = int(found.group(1)), found.group(2) is not None
    if octets > MAX_CHUNK:
        session.refuse(say.BDAT_TOO_LARGE)
        session.goodbye(say.OUT_OF_STEP)
        return
    transaction = session.transaction
    refusal = _out_of_place(session)
    if refusal is not None or transaction is None:
        _drop(session, octets, refusal or say.MAIL_FIRST)
        return
    chunks = session.incoming
    if isinstance(chunks, Chunks):
        _expect(session, chunks, octets, last)
        return
    needed = reservation(octets if last else transaction.mail.size)
    if session.server.memory.try_reserve(needed):
        _expect(session, Chunks(session, transaction, needed), octets, last)
    else:
        session.work(_wait_for_memory, session, transaction, needed, octets, last)


def _out_of_place(session: Session) -> Reply | None:
    if session.transaction is None:
        return say.MAIL_FIRST if session.helo else say.HELO_FIRST
    return None if session.transaction.recipients or session.transaction.discarded else say.RCPT_FIRST


def _expect(session: Session, chunks: Chunks, octets: int, last: bool) -> None:
    session.incoming = chunks
    chunks.chunk.expect(octets, last=last)
    chunks.pace.restart(session.loop.time())
    if octets:
        session.reader = chunks.reader
    else:
        chunks.take(chunks.reader.feed(b""))
        chunks.ended()


def _drop(session: Session, octets: int, reply: Reply) -> None:
    session.end_transaction()  # what was dropped must not be missing from a message that is accepted
    if not octets:
        raise CommandError(reply)
    session.incoming = dropped = Dropped(session, octets, reply)
    session.reader = dropped.reader


async def _wait_for_memory(
    session: Session, transaction: Transaction, needed: int, octets: int, last: bool
) -> None:
    session.flush()
    memory = session.server.memory
    try:
        async with asyncio.timeout(MEMORY_TIMEOUT):
            await memory.reserve(needed)
    except TimeoutError:
        _drop(session, octets, say.BUSY) if octets else session.refuse(say.BUSY)
        return
    _expect(session, Chunks(session, transaction, needed), octets, last)
