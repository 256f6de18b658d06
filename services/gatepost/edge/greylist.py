"""Greylisting at work, with the memory that all edges share: whichever edge a client comes back to knows it.

An edge that has not read that memory yet, or whose log is away, takes what it does not know: that only lets
somebody in early, while a delay for all who are known would hold their mail up. Own clients, allowed ones and role
addresses are never delayed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatepost.core.address import Address
from gatepost.core.checks import greylist
from gatepost.core.checks.greylist import GREYLIST, GreylistPolicy, Outcome
from gatepost.core.checks.verdict import is_role_address
from gatepost.core.networks import enclosing_network
from gatepost.core.reply import Reply
from gatepost.edge.bans import is_exempt
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from gatepost.edge.session import Session
    from gatepost.edge.transaction import Transaction


def refusal(session: Session, transaction: Transaction, recipient: Address) -> Reply | None:
    """Why a recipient that exists is not taken yet; None when it is."""
    policy = transaction.layer_of(recipient, session.client).policy.greylist
    if policy is None or is_exempt(session) or is_role_address(recipient.local):
        return None
    outcome, reply = _judge(session, transaction, policy, recipient)
    metrics.GREYLIST.add(session.listener.name, outcome)
    transaction.event("greylist", recipient=str(recipient), outcome=outcome)
    return reply


def _judge(
    session: Session, transaction: Transaction, policy: GreylistPolicy, recipient: Address
) -> tuple[str, Reply | None]:
    deps = session.server.deps
    state, now_ms = deps.state, deps.now_ms()
    network = enclosing_network(session.client, policy.ipv4_prefix, policy.ipv6_prefix)
    client, key = (
        greylist.network_key(network),
        greylist.key(network, str(transaction.mail.address or ""), recipient.key),
    )
    proofs = state.get(GREYLIST, client, now_ms)
    if greylist.is_proven(proofs):
        return Outcome.KNOWN.value, None
    known = state.get(GREYLIST, key, now_ms)
    if known is None and not state.current:
        return "unsure", None
    judgement = greylist.evaluate(policy, known, now_ms)
    if judgement.remember is not None:
        state.put_soon(GREYLIST, key, judgement.remember, judgement.until_ms)
    if judgement.outcome is Outcome.PASSED:
        state.put_soon(GREYLIST, client, *greylist.prove(policy, proofs, now_ms))
    return judgement.outcome.value, greylist.answer(judgement) if judgement.wait else None
