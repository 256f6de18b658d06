"""What judges a message's content: inspectors are fed while it comes and asked behind the final dot.

    begin       at DATA or the first BDAT: the inspectors that the recipients' policy asks for (who sent it is asked
                from MAIL on, edge/authentication.py)
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
from gatepost.edge import content_rules, journal, scanning
from gatepost.edge.scanning import Scanning
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

    def __init__(
        self,
        session: Session,
        transaction: Transaction,
        inspectors: Sequence[Inspector],
        scanning: Scanning | None = None,
    ) -> None:
        self._session, self._transaction, self._inspectors = session, transaction, inspectors
        self._scanning = scanning  # one of the inspectors

    @property
    def behind(self) -> bool:
        """Whether the client should wait."""
        return self._scanning is not None and self._scanning.behind

    def content(self, reader: DataReader, piece: bytes) -> None:
        for inspector in self._inspectors:
            inspector.content(reader, piece)

    async def conclude(self, reader: DataReader) -> Reply | None:
        """Judge the whole message and act on its recipients: the refusal, or None."""
        if self._scanning is not None:
            self._scanning.ended()  # scanners work while the others are asked
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
    """The content comes, and all recipients are known. None where their policy looks at no content."""
    inspectors: list[Inspector] = []
    if transaction.authentication is not None:
        inspectors.append(transaction.authentication)
    if transaction.trap_policy is not None:
        inspectors.append(Traps(session, transaction, transaction.trap_policy))  # after who sent it is known
    rules = content_rules.begin(session, transaction)
    if rules is not None:
        inspectors.append(rules)
    looking = None
    if transaction.content_policy.content.scanners:
        looking = scanning.begin(session, transaction, transaction.content_policy.content.scanners)
    if looking is not None:
        inspectors.append(looking)
    return Inspection(session, transaction, inspectors, looking) if inspectors else None
