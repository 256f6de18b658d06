"""Message rates at work: what this edge has accepted by whom and for whom; asked at RCPT, counted at 250."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatepost.core.address import Address
from gatepost.core.checks import message_rates
from gatepost.core.checks.harvest import HarvestWatch
from gatepost.core.checks.message_rates import MessageRates, Subject
from gatepost.core.checks.verdict import is_role_address
from gatepost.core.reply import Reply
from gatepost.edge import bans

if TYPE_CHECKING:
    from gatepost.edge.session import Session
    from gatepost.edge.transaction import Transaction


class Accepted:
    """One edge's counts, for all listeners together: a window of each length for each subject."""

    def __init__(self) -> None:
        self._watches: dict[tuple[Subject, float], HarvestWatch] = {}

    def watch(self, subject: Subject, window: float) -> HarvestWatch:
        return self._watches.setdefault((subject, window), HarvestWatch(window))


def refusal(session: Session, transaction: Transaction, recipient: Address | None) -> Reply | None:
    """The refusal of one more recipient, where a rate is reached; None notes it as one to be counted.

    `recipient` is the mailbox (without detail, so that user+1, user+2 are one), None for one that is relayed to.
    """
    rates = transaction.policy.message_rates
    if rates is None or (recipient is not None and is_role_address(recipient.local)):
        return None
    now_ms = session.server.deps.now_ms()
    for subject, name in _subjects(session, transaction, rates, recipient):
        rate = rates.of(subject)
        if rate is None:
            continue
        count = session.server.accepted.watch(subject, rate.window).look(name, at_ms=now_ms)
        found = message_rates.evaluate(subject, rate, count.named)
        if found is not None:
            return found
    if recipient is not None:
        transaction.mailboxes.add(recipient.key)
    return None


def count(session: Session, transaction: Transaction) -> None:
    """A message was accepted."""
    rates = transaction.policy.message_rates
    if rates is None:
        return
    now_ms = session.server.deps.now_ms()
    named = set(_subjects(session, transaction, rates, None))
    named.update((Subject.RECIPIENT, key) for key in transaction.mailboxes)
    for subject, name in named:
        rate = rates.of(subject)
        if rate is not None:
            session.server.accepted.watch(subject, rate.window).see(name, unknown=False, at_ms=now_ms)


def _subjects(
    session: Session, transaction: Transaction, rates: MessageRates, recipient: Address | None
) -> list[tuple[Subject, str]]:
    found: list[tuple[Subject, str]] = []
    if recipient is not None:
        found.append((Subject.RECIPIENT, recipient.key))
    if session.account is not None:
        found.append((Subject.SENDER, f"login:{session.account.name.lower()}"))
    elif transaction.mail.address is not None:
        found.append((Subject.SENDER, transaction.mail.address.key))
    if rates.client is not None and not bans.is_exempt(session):
        found.append((Subject.CLIENT, bans.network_of(session)))
    return found
