"""Policies in Shadow and a message's content: inspectors of their own, fed beside the real ones, asked after them.

begin       with the content, for each Shadow of its recipients that judges content
concluded   after the real judgement: theirs is waited for in the background, and nobody waits for it
"""

from __future__ import annotations

import contextvars
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from gatepost.core.checks.verdict import Decision, Verdict, decide
from gatepost.core.data_reader import DataReader
from gatepost.core.envelope import Recipient
from gatepost.core.layers import Layer
from gatepost.core.manifest.actions import Action
from gatepost.core.reply import Reply
from gatepost.core.tables import ListenerTable
from gatepost.edge import authentication, inspection, journal
from gatepost.edge.inspection import Inspection
from gatepost.edge.shadow import action_of, refusal_of, shadow_of
from gatepost.edge.transaction import Transaction
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from gatepost.edge.session import Session


class _State(msgspec.Struct, frozen=True):
    """What a transaction was before its content was judged."""

    recipients: dict[str, Recipient]
    tags: dict[str, None]
    discarded: int

    def changed(self, transaction: Transaction) -> Decision:
        """What was done with it since: the verdicts that it shows."""
        verdicts = [_verdict(Action.TAG, told) for told in transaction.tags if told not in self.tags]
        if transaction.discarded > self.discarded:
            verdicts.append(Verdict("content", Action.DISCARD))
        for key, one in transaction.recipients.items():
            if one.quarantine != self.recipients[key].quarantine:
                verdicts.append(_verdict(Action.QUARANTINE, one.quarantine))
        return decide(verdicts)


class Aside:
    """One Shadow's look at one message: its own transaction, which nothing reads, and its own inspectors."""

    def __init__(self, session: Session, transaction: Transaction, table: ListenerTable, layer: Layer) -> None:
        self._context = contextvars.copy_context()
        self._context.run(journal.ASIDE.set, True)
        self.policy = layer.origin or table.policy.origin
        self.transaction = aside = Transaction(transaction.mail, transaction.tables, table, None)
        aside.layer = layer
        aside.recipients, aside.tags = dict(transaction.recipients), dict(transaction.tags)
        aside.discarded = transaction.discarded
        self._before = _State(aside.recipients.copy(), aside.tags.copy(), aside.discarded)
        aside.relaying, aside.access = list(transaction.relaying), transaction.access
        aside.inspection = self._context.run(self._begin, session, aside)

    @staticmethod
    def _begin(session: Session, aside: Transaction) -> Inspection | None:
        policy = aside.content_policy.authentication
        if policy is not None:
            aside.authentication = authentication.begin(session, aside, policy)
        return inspection.begin(session, aside)

    def content(self, reader: DataReader, piece: bytes) -> None:
        looking = self.transaction.inspection
        if looking is None:
            return
        self._context.run(looking.content, reader, piece)
        if looking.behind:  # the real one waits for its scanners; nobody waits for these
            metrics.SHADOW_SKIPPED.add("slow")
            self.close()

    def done(self, transaction: Transaction, refusal: Reply | None) -> Decision:
        """What a judgement made of a transaction that began as this one."""
        return refusal_of(refusal) if refusal is not None else self._before.changed(transaction)

    async def conclude(self, session: Session, reader: DataReader, really: Action) -> None:
        """What would be done with the message, beside what was done."""
        aside = self.transaction
        looking = aside.inspection
        if looking is None:
            return
        journal.ASIDE.set(True)
        would = self.done(aside, await looking.conclude(reader))
        named = list(self._before.recipients.values())[: journal.MOST_NAMED]
        journal.shadowed(
            session.server.deps,
            session,
            "content",
            self.policy,
            would,
            really,
            to=",".join(f"<{one.address}>" for one in named),
            **{"from": f"<{aside.mail.address or ''}>"},
        )

    def close(self) -> None:
        """Nobody asks any more; again is fine."""
        self.transaction.end()
        self.transaction.inspection = None


def _verdict(action: Action, told: str) -> Verdict:
    check, _, reason = told.partition(": ")
    return Verdict(check, action, reason=reason)


def begin(session: Session, transaction: Transaction) -> Sequence[Aside]:
    """The content comes: every Shadow of its recipients that judges content looks at it, each once."""
    if not transaction.table.has_shadow:
        return ()
    found: dict[bytes, Aside] = {}
    for one in transaction.recipients.values():
        config = transaction.tables.domain(one.address.rpartition("@")[2])
        shadow = shadow_of(transaction, None if config is None else config.domain)
        if shadow is not None and shadow[1].content not in found:
            found[shadow[1].content] = Aside(session, transaction, *shadow)
    return [aside for aside in found.values() if aside.transaction.inspection is not None]


def concluded(
    session: Session, transaction: Transaction, asides: Sequence[Aside], reader: DataReader, refusal: Reply | None
) -> None:
    """The message was judged for real: let the others say what they would have done."""
    for aside in asides:
        really = action_of(aside.done(transaction, refusal))
        session.server.shadows.start(aside.conclude(session, reader, really), aside.close)
