"""RCPT: is this recipient ours, or may this client relay to it (RFC 5321 3.3, 3.6, 4.1.1.3)?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatepost.core import smtp_replies as say
from gatepost.core.address import Address
from gatepost.core.checks import recipient as recipient_check
from gatepost.core.envelope import Recipient
from gatepost.core.ports.directory import DirectoryUnavailable
from gatepost.core.recipients import find_recipient
from gatepost.core.relay_right import DENIED, RelayFacts, relay_right
from gatepost.core.reply import Reply
from gatepost.core.smtp_commands import CommandError, RcptCommand, parse_rcpt
from gatepost.edge.transaction import Transaction

if TYPE_CHECKING:
    from gatepost.edge.session import Session

OK: Final = b"250 2.1.5 Ok\r\n"


def rcpt(session: Session, argument: bytes) -> None:
    transaction = session.transaction
    if transaction is None:
        raise CommandError(say.MAIL_FIRST)
    command = parse_rcpt(argument, utf8=transaction.mail.smtputf8)
    if len(transaction.recipients) >= transaction.policy.max_recipients:
        session.refuse(say.TOO_MANY_RECIPIENTS, command.named)  # RFC 5321 4.5.3.1.10: 452, never 5xx
        return
    if command.source_route:
        _refuse(session, command, recipient_check.SOURCE_ROUTE)
        return
    home = transaction.tables.home(command.address)
    if home is not None:
        session.work(_local, session, transaction, command, home[1])
        return
    facts = RelayFacts(
        client=session.client,
        authenticated=session.account is not None,
        sender=transaction.mail.address,
        recipient=command.address,
        own_hosts=session.own_hosts,
    )
    right = relay_right(facts, transaction.tables, transaction.table)
    if right is None:
        _refuse(session, command, DENIED)
        return
    transaction.relaying.append(facts)
    transaction.event("relay", recipient=command.named, right=right.value)
    _take(session, transaction, command, command.address)


async def _local(session: Session, transaction: Transaction, command: RcptCommand, own: Address) -> None:
    address = command.address if command.address.domain else own
    try:
        found = await find_recipient(transaction.tables, session.server.deps.directories, address)
    except DirectoryUnavailable:
        _refuse(session, command, recipient_check.UNAVAILABLE)
        return
    refusal = recipient_check.evaluate(found, transaction.mail.size)
    if refusal is not None:
        _refuse(session, command, refusal)
        return
    transaction.event("recipient", recipient=command.named, found=found.kind.value)
    if found.config is not None and found.config.max_message_size:
        transaction.size_limit = min(transaction.size_limit, found.config.max_message_size)
    _take(session, transaction, command, address)


def _take(session: Session, transaction: Transaction, command: RcptCommand, address: Address) -> None:
    text = str(address)
    # A name without a domain is complete in `address`; it would be no address to whoever reads the envelope.
    original = command.named if command.named != text and "@" in command.named else ""
    # Named twice is meant once (RFC 5321 leaves it open): one copy.
    transaction.recipients.setdefault(address.key, Recipient(text, original=original))
    session.write(OK)


def _refuse(session: Session, command: RcptCommand, reply: Reply) -> None:
    session.refuse(say.quoting(reply, command.named), command.named)
