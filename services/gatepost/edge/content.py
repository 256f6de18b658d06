"""The content of one message while it comes: by DATA up to its dot, or by BDAT chunk after chunk; and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatepost.core.checks import content as content_check
from gatepost.core.data_reader import DataReader
from gatepost.core.ids import new_id
from gatepost.core.reply import Reply
from gatepost.edge import inspection, rates, shadow_content
from gatepost.edge.body import ReceivedBody
from gatepost.edge.transaction import Transaction
from gatepost.edge.wire import NEVER

if TYPE_CHECKING:
    from gatepost.edge.session import Session

RATE_WINDOW: Final = 60.0  # s over which a message's rate is judged
# s from 354, or the first BDAT, to the end: the pieces of a body that still comes have no record that refers to
# them, and such are trimmed when they are a day old (work/content_trimming).
LONGEST_CONTENT: Final = 43_200.0


class Pace:
    """Whether content comes fast enough. All times are the loop's."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._since = session.loop.time()
        self.restart(self._since)

    def restart(self, now: float) -> None:
        """Judge anew from now on."""
        self._window_start, self._window_bytes = now, self._session.content_bytes

    def too_slow(self, now: float) -> bool:
        session = self._session
        if now - self._since > LONGEST_CONTENT:
            return True
        if session.deadline == NEVER:
            self.restart(now)  # it is we who are slow
            return False
        elapsed = now - self._window_start
        if elapsed < RATE_WINDOW:
            return False
        if session.content_bytes - self._window_bytes < elapsed * session.server.minimum_rate:
            return True
        self.restart(now)
        return False


class Incoming:
    """Owned by its session. `reserved` bytes of the server's memory belong to the body from now on."""

    def __init__(self, session: Session, transaction: Transaction, reserved: int, reader: DataReader) -> None:
        server = session.server
        self.session, self.transaction, self.reader = session, transaction, reader
        self.pace = Pace(session)
        transaction.inspection = inspection.begin(session, transaction)
        self.asides = shadow_content.begin(session, transaction)
        self.body = ReceivedBody(
            new_id(server.deps.now_ms()),
            server.deps.content,
            server.memory,
            reserved,
            server.acceptor.limit,
            self.room,
        )

    @property
    def behind(self) -> bool:
        """Whether the client should wait."""
        looking = self.transaction.inspection
        return self.body.behind or (looking is not None and looking.behind)

    def room(self) -> None:
        """The body, or a scanner, can take more."""
        if not self.behind:
            self.session.room()

    def take(self, piece: bytes) -> None:
        """The next piece, perhaps empty."""
        if self.reader.fault is not None:
            self.body.close()  # read on without keeping it
        elif piece:
            self.body.add(piece)
            if self.transaction.inspection is not None:
                self.transaction.inspection.content(self.reader, piece)
            for aside in self.asides:
                aside.content(self.reader, piece)

    def ended(self) -> None:
        """The reader is finished."""
        self.session.end_of_content()

    async def refusal(self) -> Reply | None:
        """Judge the whole message. May be cancelled: nothing is accepted yet."""
        refusal = content_check.evaluate(self.reader, self.transaction.policy.max_received)
        if refusal is not None:
            return refusal
        looking = self.transaction.inspection
        if looking is not None:
            refusal = await looking.conclude(self.reader)
        if self.asides:
            shadow_content.concluded(self.session, self.transaction, self.asides, self.reader, refusal)
            self.asides = ()
        return refusal

    async def accept(self) -> Reply | str:
        """Make it durable: its id, or the refusal."""
        session, reader = self.session, self.reader
        reply = await session.server.acceptor.accept(
            self.transaction,
            self.body,
            session.facts(),
            session.loop,
            extended=session.extended,
            eight_bit=reader.eight_bit,
        )
        if isinstance(reply, str):
            rates.count(session, self.transaction)
        return reply

    def close(self) -> None:
        """Give everything back; again is fine."""
        self.body.close()
        for aside in self.asides:
            aside.close()
