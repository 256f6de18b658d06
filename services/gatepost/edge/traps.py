"""Spam traps at work: taken at RCPT, remembered with the transaction, judged behind the final dot, and the bans.

The sender of a ban is looked at when MAIL names it; who is ours or vouched for neither earns a ban nor meets one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gatepost.core.address import Address
from gatepost.core.bans import BanCause, client_key, sender_key
from gatepost.core.checks import spam_traps
from gatepost.core.checks.dnsbl import vouched
from gatepost.core.checks.spam_traps import SpamTrapPolicy, TrapFacts
from gatepost.core.checks.verdict import Verdict
from gatepost.core.data_reader import DataReader
from gatepost.core.envelope import Trust
from gatepost.core.networks import enclosing_network
from gatepost.core.reply import Reply
from gatepost.edge import bans, journal
from gatepost.edge.client_verdicts import is_own

if TYPE_CHECKING:
    from gatepost.edge.session import Session
    from gatepost.edge.transaction import Transaction

# One host fell into it: its neighbours did not. A customer's IPv6 network is a /64 (RFC 6177 2).
IPV4_PREFIX: Final = 32
IPV6_PREFIX: Final = 64


class Traps:
    """An Inspector of one transaction, under a policy with traps."""

    def __init__(self, session: Session, transaction: Transaction, policy: SpamTrapPolicy) -> None:
        self._session, self._transaction, self._policy = session, transaction, policy

    def content(self, reader: DataReader, piece: bytes) -> None: ...

    async def conclude(self, reader: DataReader) -> Reply | Sequence[Verdict]:
        """Refuse a message that named a trap, and ban who sent it; asked after who sent it is known."""
        transaction, session = self._transaction, self._session
        if not transaction.trap:
            return ()
        sender, authentication = transaction.mail.address, transaction.authentication
        facts = TrapFacts(
            transaction.trap,
            "" if sender is None else str(sender),
            Trust.UNVERIFIED if authentication is None else authentication.trust,
            is_known_good(session),
        )
        follows = spam_traps.evaluate(self._policy, facts)
        journal.judged(session.server.deps, session, follows.verdict)
        reason = f"a message to {facts.trap}"
        if follows.ban_client:
            network = enclosing_network(session.client, IPV4_PREFIX, IPV6_PREFIX)
            bans.ban(session, client_key(network), follows.ban_client, BanCause.TRAP, reason)
        if follows.ban_sender:
            bans.ban(session, sender_key(facts.sender), follows.ban_sender, BanCause.TRAP, reason)
        return follows.verdict.answer if follows.refuses else ()

    def close(self) -> None: ...


def springs(session: Session, transaction: Transaction, address: Address) -> bool:
    """Whether a recipient is a trap; it is noted, and the client hears what it hears for any mailbox."""
    layer = transaction.layer_of(address, session.client)
    if address.key not in layer.traps:
        return False
    if not transaction.trap:
        transaction.trap, transaction.trap_policy = str(address), layer.policy.spam_traps
    transaction.discarded += 1
    return True


def is_known_good(session: Session) -> bool:
    """Whether a client must not be banned by what anybody may have made it do."""
    if bans.is_exempt(session):
        return True
    checks, known = session.table.client_checks, session.verdicts
    return checks is not None and known is not None and vouched(checks.dnsbl, known.client.listings)


def sender_banned(session: Session, sender: Address | None) -> Verdict | None:
    """The verdict on a sender that a trap has banned; own clients are not asked."""
    known = session.server.bans
    if not known or sender is None or is_own(session) or known.named(sender_key(str(sender))) is None:
        return None
    return spam_traps.sender_verdict(str(sender))
