"""Addresses with routes in them, at MAIL and at RCPT, where a policy asks; own clients are not judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatepost.core.address import Address
from gatepost.core.checks import routed_address
from gatepost.core.checks.verdict import Decision, decide
from gatepost.edge import journal
from gatepost.edge.client_verdicts import is_own

if TYPE_CHECKING:
    from gatepost.edge.session import Session
    from gatepost.edge.transaction import Transaction


def judge_sender(session: Session, transaction: Transaction) -> None:
    """Add what there is to say of MAIL's address to the transaction's verdicts."""
    policy, mail = transaction.policy.routed_addresses, transaction.mail
    if policy is None or mail.address is None or is_own(session):
        return
    verdict = routed_address.evaluate(policy, mail.address.local, mail.source_route, sender=True)
    if verdict is not None:
        transaction.verdicts.append(verdict)
        journal.judged(session.server.deps, session, verdict)


def decision_with(session: Session, transaction: Transaction, recipient: Address, known: Decision) -> Decision:
    """What is known of a recipient together with what its own address says."""
    policy = transaction.policy.routed_addresses
    if policy is None or is_own(session) or recipient.key in transaction.exempt:
        return known
    verdict = routed_address.evaluate(policy, recipient.local, sender=False)
    if verdict is None:
        return known
    journal.judged(session.server.deps, session, verdict)
    strongest = () if known.strongest is None else (known.strongest,)
    return decide((*strongest, *known.tags, verdict))
