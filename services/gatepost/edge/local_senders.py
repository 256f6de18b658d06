"""Senders of our own domains: who may name them, and whether they exist; asked at a transaction's first RCPT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatepost.core.checks import local_sender
from gatepost.core.checks.local_sender import LocalSenderFacts
from gatepost.core.ports.directory import DirectoryUnavailable
from gatepost.core.recipients import Kind, find_recipient
from gatepost.edge import journal
from gatepost.edge.client_verdicts import is_own

if TYPE_CHECKING:
    from gatepost.edge.session import Session
    from gatepost.edge.transaction import Transaction


def concerns(transaction: Transaction) -> bool:
    """Whether the sender has still to be judged, because it is one of ours and the policy asks."""
    if transaction.sender_judged or not transaction.policy.local_sender.asks:
        return False
    sender = transaction.mail.address
    return sender is not None and transaction.tables.home(sender) is not None


async def judge(session: Session, transaction: Transaction) -> None:
    """Add what there is to say of the sender to the transaction's verdicts. SPF is settled before."""
    transaction.sender_judged = True
    policy, sender, authentication = (
        transaction.policy.local_sender,
        transaction.mail.address,
        transaction.authentication,
    )
    assert sender is not None
    facts = LocalSenderFacts(
        str(sender),
        is_own(session),
        None if authentication is None else authentication.spf_status,
        await _exists(session, transaction) if policy.must_exist else None,
    )
    verdict = local_sender.evaluate(policy, facts)
    if verdict is not None:
        transaction.verdicts.append(verdict)
        journal.judged(session.server.deps, session, verdict)


async def _exists(session: Session, transaction: Transaction) -> bool | None:
    assert transaction.mail.address is not None
    try:
        found = await find_recipient(transaction.tables, session.server.deps.directories, transaction.mail.address)
    except DirectoryUnavailable:
        return None
    return found.kind is not Kind.UNKNOWN
