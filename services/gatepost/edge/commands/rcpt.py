"""RCPT: is this recipient ours, or may this client relay to it (RFC 5321 3.3, 3.6, 4.1.1.3)?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from gatepost.core import smtp_replies as say
from gatepost.core.address import Address
from gatepost.core.checks import recipient as recipient_check
from gatepost.core.checks.verdict import Decision
from gatepost.core.configuration import DomainConfig
from gatepost.core.envelope import Recipient
from gatepost.core.layers import Layer
from gatepost.core.manifest.actions import Action
from gatepost.core.parsed_commands import RcptCommand
from gatepost.core.ports.directory import DirectoryUnavailable
from gatepost.core.recipients import find_recipient
from gatepost.core.relay_right import RelayFacts, Right, relay_right
from gatepost.core.reply import Reply
from gatepost.core.smtp_commands import CommandError, parse_rcpt
from gatepost.edge import (
    access,
    bans,
    call_ahead,
    greylist,
    journal,
    layers,
    local_senders,
    pop_before_smtp,
    rates,
    routed_addresses,
    shadow,
    traps,
)
from gatepost.edge.transaction import Transaction
from gatepost.work.at_once import WouldWait, at_once

if TYPE_CHECKING:
    from gatepost.edge.session import Session

OK: Final = b"250 2.1.5 Ok\r\n"


def rcpt(session: Session, argument: bytes) -> None:
    transaction = session.transaction
    if transaction is None:
        raise CommandError(say.MAIL_FIRST)
    if session.incoming is not None:
        raise CommandError(say.BDAT_BEGUN)  # RFC 3030 2
    command = parse_rcpt(argument, utf8=transaction.mail.smtputf8, extended=session.extended)
    if len(transaction.recipients) + transaction.discarded >= transaction.policy.max_recipients:
        session.refuse(say.TOO_MANY_RECIPIENTS, command.named)  # RFC 5321 4.5.3.1.10: 452, never 5xx
        return
    session.recipients_named += 1
    if session.recipients_named > transaction.policy.recipients_without_message:
        session.goodbye(say.NO_MESSAGE)  # it asks who is here, and has nothing to say to anybody
        return
    if command.source_route:
        _refuse(session, command, recipient_check.SOURCE_ROUTE)
        return
    home = transaction.tables.home(command.address)
    if _must_wait(session, transaction):
        session.work(_once_settled, session, transaction, command, home)
    elif home is not None:
        _local(session, transaction, command, home[1])
    else:
        _foreign(session, transaction, command)


def _must_wait(session: Session, transaction: Transaction) -> bool:
    """Whether something that decides about every recipient is still to come."""
    if session.verdicts is not None and not session.verdicts.settled:
        return True
    authentication = transaction.authentication
    return (authentication is not None and authentication.refuses_senders) or local_senders.concerns(transaction)


async def _once_settled(
    session: Session, transaction: Transaction, command: RcptCommand, home: tuple[DomainConfig, Address] | None
) -> None:
    """What is looked up about the client has begun when it connected; only here somebody waits for it."""
    if session.verdicts is not None:
        await session.verdicts.settle()
    judges_sender = local_senders.concerns(transaction)
    authentication = transaction.authentication
    if authentication is not None and (authentication.refuses_senders or judges_sender):
        await authentication.settle_sender()
    if judges_sender:
        await local_senders.judge(session, transaction)
    if home is None:
        _foreign(session, transaction, command)
        return
    judged = _before_lookup(session, transaction, command, home[1])
    if judged is not None:
        await _look_up(session, transaction, command, *judged)


def _foreign(session: Session, transaction: Transaction, command: RcptCommand) -> None:
    facts = RelayFacts(
        client=session.client,
        authenticated=session.account is not None,
        sender=transaction.mail.address,
        recipient=command.address,
        own_hosts=session.own_hosts,
        certificate=session.certificate,
        granted=access.grants(session, transaction, command.address),
        popped=pop_before_smtp.knows(session, transaction.policy),
    )
    right = relay_right(facts, transaction.tables, transaction.table)
    if right is None:
        _refuse(session, command, access.denial(session, transaction))
        return
    everybodys = right is Right.SECONDARY_MX
    if everybodys and bans.refuses(session):
        return
    decision = access.decide(session, transaction, command.address)
    if _refused(session, command, decision):
        return
    plain = transaction.table.plain
    too_many = rates.refusal(session, transaction, None) or layers.refusal(transaction, plain)
    if everybodys:
        too_many = too_many or greylist.refusal(session, transaction, command.address)
        facts = msgspec.structs.replace(facts, granted=True)  # says nothing of the client: it is not trusted
    if too_many is not None:
        _refuse(session, command, too_many)
        return
    transaction.relaying.append(facts)
    transaction.event("relay", recipient=command.named, right=right.value)
    _take(session, transaction, command, command.address, decision, plain)


def _local(session: Session, transaction: Transaction, command: RcptCommand, own: Address) -> None:
    """Answer at once where the directory does: a task would cost more than the answer."""
    judged = _before_lookup(session, transaction, command, own)
    if judged is None:
        return
    try:
        at_once(_look_up(session, transaction, command, *judged))
    except WouldWait:
        session.work(_look_up, session, transaction, command, *judged)


def _before_lookup(
    session: Session, transaction: Transaction, command: RcptCommand, own: Address
) -> tuple[Address, Decision] | None:
    """Who is meant, and what the policies say of it, whoever that is; None when it has been answered."""
    if bans.refuses(session):
        return None
    address = command.address if command.address.domain else own
    decision = access.decide(session, transaction, address)
    decision = routed_addresses.decision_with(session, transaction, address, decision)
    if _refused(session, command, decision):
        return None
    if traps.springs(session, transaction, own):
        session.write(OK)
        return None
    return address, decision


async def _look_up(
    session: Session, transaction: Transaction, command: RcptCommand, address: Address, decision: Decision
) -> None:
    """Answer by what the directory or the next host knows. No effect comes before the last wait: see at_once."""
    try:
        found = await find_recipient(transaction.tables, session.server.deps.directories, address)
        if found.config is not None and found.config.call_ahead is not None:
            found = await call_ahead.verified(session, found, found.config.call_ahead)
    except DirectoryUnavailable:
        _refuse(session, command, recipient_check.UNAVAILABLE)
        return
    refusal = recipient_check.evaluate(found, transaction.mail.size)
    bans.recipient_named(session, unknown=refusal is recipient_check.UNKNOWN)
    if refusal is not None:
        _refuse(session, command, refusal)
        return
    layer = transaction.layer_of(address, session.client)
    waits = (
        greylist.refusal(session, transaction, address)
        or rates.refusal(session, transaction, found.address)
        or layers.refusal(transaction, layer)
    )
    if waits is not None:
        _refuse(session, command, waits)
        return
    transaction.event("recipient", recipient=command.named, found=found.kind.value)
    if found.config is not None and found.config.max_message_size:
        transaction.size_limit = min(transaction.size_limit, found.config.max_message_size)
    _take(session, transaction, command, address, decision, layer)


def _refused(session: Session, command: RcptCommand, decision: Decision) -> bool:
    verdict = decision.strongest
    if verdict is None or not verdict.refuses:
        return False
    _refuse(session, command, verdict.answer)
    return True


def _take(
    session: Session,
    transaction: Transaction,
    command: RcptCommand,
    address: Address,
    decision: Decision,
    layer: Layer,
) -> None:
    text = str(address)
    verdict = decision.strongest
    shadow.taken(session, address, decision)
    transaction.tags.update((tag.told, None) for tag in decision.tags)
    if verdict is not None and verdict.action is Action.DISCARD:
        transaction.discarded += 1
        journal.discarded(session.server.deps, session, verdict, text)
        session.write(OK)
        return
    quarantine = "" if verdict is None else verdict.told
    # A name without a domain is complete in `address`; it would be no address to whoever reads the envelope.
    original = command.named if command.named != text and "@" in command.named else ""
    # Named twice is meant once (RFC 5321 leaves it open): one copy.
    recipient = Recipient(
        text, original=original, notify=command.notify, orcpt=command.orcpt, quarantine=quarantine
    )
    transaction.recipients.setdefault(address.key, recipient)
    layers.taken(transaction, layer)
    session.write(OK)


def _refuse(session: Session, command: RcptCommand, reply: Reply) -> None:
    shadow.refused(session, command.address, reply)
    session.refuse(say.quoting(reply, command.named), command.named)
