"""What judges a message's content: inspectors are fed while it comes and asked behind the final dot.

    begin       at MAIL: the inspectors that the policy in force asks for
    content     each piece that comes without any fault so far
    conclude    behind the final dot, each within its own deadline; what they say acts once, on all recipients

No octet of the message is changed: what is to be left out or put in its place stands in the envelope
(docs/adr/0011).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from gatepost.core.checks.verdict import Decision, Verdict, decide, is_role_address
from gatepost.core.data_reader import DataReader
from gatepost.core.envelope import Recipient
from gatepost.core.manifest.actions import Action
from gatepost.core.reply import Reply
from gatepost.edge import authentication, journal
from gatepost.edge.traps import Traps

if TYPE_CHECKING:
    from gatepost.edge.session import Session
    from gatepost.edge.transaction import Transaction


class Inspector(Protocol):
    """Judges the content of one message. Owned by its Inspection."""

    def content(self, reader: DataReader, piece: bytes) -> None:
        """The next piece, as it will be stored; `reader` has the header so far. Must not block."""

    async def conclude(self, reader: DataReader) -> Reply | Sequence[Verdict]:
        """Return what it found, within its own deadline; a Reply refuses the message whoever it is for.

        May be cancelled. Each verdict is told to the journal by the one who found it.
        """

    def close(self) -> None:
        """Nobody asks any more; again is fine."""


class Inspection:
    """All that looks at the content of one transaction's message."""

    def __init__(self, session: Session, transaction: Transaction, inspectors: Sequence[Inspector]) -> None:
        self._session, self._transaction, self._inspectors = session, transaction, inspectors

    def content(self, reader: DataReader, piece: bytes) -> None:
        for inspector in self._inspectors:
            inspector.content(reader, piece)

    async def conclude(self, reader: DataReader) -> Reply | None:
        """Judge the whole message and act on its recipients: the refusal, or None."""
        verdicts: list[Verdict] = []
        for inspector in self._inspectors:
            found = await inspector.conclude(reader)
            if isinstance(found, Reply):
                return found
            verdicts += found
        return self._act(decide(verdicts))

    def close(self) -> None:
        for inspector in self._inspectors:
            inspector.close()

    def _act(self, decision: Decision) -> Reply | None:
        """Role addresses (RFC 2142) and those that are exempt get the message, unless it is refused.

        A refusal is for all recipients or none, for there is one reply: it comes when one of them is judged.
        """
        transaction, verdict = self._transaction, decision.strongest
        transaction.tags.update((tag.told, None) for tag in decision.tags)
        judged = {key: one for key, one in transaction.recipients.items() if not self._is_spared(key, one)}
        if verdict is None or not judged:
            return None
        if verdict.refuses:
            return verdict.answer
        for key, recipient in judged.items():
            if verdict.action is Action.DISCARD:
                del transaction.recipients[key]
                transaction.discarded += 1
                journal.discarded(self._session.server.deps, self._session, verdict, recipient.address)
            elif not recipient.quarantine:
                transaction.recipients[key] = msgspec.structs.replace(recipient, quarantine=verdict.told)
        return None

    def _is_spared(self, key: str, recipient: Recipient) -> bool:
        if key in self._transaction.exempt:
            return True
        local, _, domain = recipient.address.rpartition("@")
        return is_role_address(local) and self._transaction.tables.domain(domain) is not None


def begin(session: Session, transaction: Transaction) -> Inspection | None:
    """MAIL was taken. None where the policy looks at no content."""
    policy = transaction.policy
    inspectors: list[Inspector] = []
    if policy.authentication is not None:
        transaction.authentication = authentication.begin(session, transaction)
        if transaction.authentication is not None:
            inspectors.append(transaction.authentication)
    if policy.spam_traps is not None:
        inspectors.append(Traps(session, transaction, policy.spam_traps))  # asked after who sent it is known
    return Inspection(session, transaction, inspectors) if inspectors else None
