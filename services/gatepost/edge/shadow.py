"""Policies in Shadow at work: they decide and record, beside what is done, and never act.

After RCPT was answered: what is known of client and sender, access rules, SPF where it refuses, traps and
greylisting. What they make of a message's content is shadow_content.py's.

Everything is looked up in the background, after the answer, by tasks that the server owns; nothing is written to
any memory that the real policy reads. A transaction whose tables have no Shadow costs one look at a flag. Not
judged: limits of connections, rates, bans and logins, which act before anybody is named or over many sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from gatepost.core.access.table import AccessRule
from gatepost.core.address import Address
from gatepost.core.checks import access as access_check
from gatepost.core.checks import greylist, recipient
from gatepost.core.checks.greylist import GREYLIST
from gatepost.core.checks.spam_traps import TRAPPED
from gatepost.core.checks.verdict import Decision, Verdict, decide, is_role_address
from gatepost.core.layers import Layer
from gatepost.core.manifest.actions import Action
from gatepost.core.networks import enclosing_network
from gatepost.core.relay_right import DENIED, RelayFacts, relay_right
from gatepost.core.reply import Reply
from gatepost.core.smtp_replies import OTHER_CONTENT_POLICY, RECIPIENT_TOO_LARGE
from gatepost.core.tables import ListenerTable
from gatepost.edge import authentication, journal, pop_before_smtp
from gatepost.edge.access import ListenerRules
from gatepost.edge.client_verdicts import ClientVerdicts, is_own
from gatepost.edge.transaction import Transaction
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from gatepost.edge.session import Session

MOST: Final = 1000  # judgements under way in one edge; each holds some kilobytes, a message's its inspectors
LIMIT: Final = 90.0  # s; every look-up has a limit of its own, this only bounds a fault of ours
CLOSE_GRACE: Final = 2.0

# Refused because of facts that no policy changes: there is nothing to compare.
_FACTS: Final = frozenset(
    {recipient.CHECK, recipient.OVER_QUOTA.check, recipient.UNAVAILABLE.check, recipient.SOURCE_ROUTE.check}
) | {RECIPIENT_TOO_LARGE.check, OTHER_CONTENT_POLICY.check}

_log = structlog.get_logger("gatepost.edge")


class Shadows:
    """What is being judged aside for all sessions of an edge, which may end before it is done."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, judging: Coroutine[Any, Any, None], after: Callable[[], None] | None = None) -> None:
        """Let it run, unless too much does already; `after` is called in any case, whatever becomes of it."""
        if len(self._tasks) >= MOST:
            judging.close()
            metrics.SHADOW_SKIPPED.add("busy")
            if after is not None:
                after()
            return
        task = asyncio.get_running_loop().create_task(_guarded(judging))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if after is not None:
            task.add_done_callback(lambda _: after())

    @property
    def under_way(self) -> int:
        """How many judgements are not done."""
        return len(self._tasks)

    async def settle(self) -> None:
        """Wait until everything that was started is done."""
        while self._tasks:
            await asyncio.wait(set(self._tasks), timeout=LIMIT)

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=CLOSE_GRACE)


async def _guarded(judging: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.timeout(LIMIT):
            await judging
    except Exception:
        _log.exception("internal error in a policy in Shadow")


class _Asked(msgspec.Struct, frozen=True):
    """What was known when RCPT was answered: the session goes on meanwhile. `own`: as its MailDomain knows it."""

    helo: str
    sender: Address | None
    recipient: Address
    own: Address
    domain: str | None
    facts: RelayFacts
    named: int
    really: Action


def taken(session: Session, address: Address, decision: Decision) -> None:
    """A recipient is accepted: let what stands in Shadow judge it too."""
    if session.transaction is not None and session.transaction.table.has_shadow:
        _answered(session, session.transaction, address, action_of(decision))


def refused(session: Session, address: Address, reply: Reply) -> None:
    """The same for one that is refused."""
    transaction = session.transaction
    if transaction is not None and transaction.table.has_shadow and reply.check not in _FACTS:
        _answered(session, transaction, address, Action.DEFER if reply.temporary else Action.REJECT)


def action_of(decision: Decision) -> Action:
    """What a decision comes to."""
    return Action.TAG if decision.strongest is None and decision.tags else decision.action


def _answered(session: Session, transaction: Transaction, address: Address, really: Action) -> None:
    home = transaction.tables.home(address)
    found = shadow_of(transaction, None if home is None else home[0].domain)
    if found is None:
        return
    table, layer = found
    facts = RelayFacts(
        client=session.client,
        authenticated=session.account is not None,
        sender=transaction.mail.address,
        recipient=address,
        own_hosts=session.own_hosts,
        certificate=session.certificate,
        popped=pop_before_smtp.knows(session, table.policy),
    )
    asked = _Asked(
        session.helo,
        transaction.mail.address,
        address,
        address if home is None else home[1],
        None if home is None else home[0].domain,
        facts,
        len(transaction.recipients) + transaction.discarded,
        really,
    )
    session.server.shadows.start(_judge_recipient(session, transaction, table, layer, asked))


def shadow_of(transaction: Transaction, domain: str | None) -> tuple[ListenerTable, Layer] | None:
    """What judges aside for a domain's recipients: the listener's Shadow, or the domain's own."""
    table = transaction.table
    layers = None if domain is None else table.layers.get(domain)
    if table.shadow is not None:
        return table.shadow, table.shadow.plain if domain is None else table.shadow.layer(domain, "")
    if layers is not None and layers.shadow is not None:
        return table, layers.shadow
    return None


async def _judge_recipient(
    session: Session, transaction: Transaction, table: ListenerTable, layer: Layer, asked: _Asked
) -> None:
    journal.ASIDE.set(True)  # in this task alone
    known = session.verdicts if table is session.table else None
    client = known or ClientVerdicts(session, table.client_checks)
    try:
        if client is not known:
            client.connected()
            client.greeted(asked.helo)
            client.sender(asked.sender)
        await client.settle()
        sender = await _sender(session, transaction, table, layer)
        would = _decide(session, transaction, table, layer, asked, client, sender)
    finally:
        if client is not known:
            client.close()
    journal.shadowed(
        session.server.deps,
        session,
        "recipient",
        layer.origin or table.policy.origin,
        would,
        asked.really,
        to=f"<{asked.recipient}>",
        **{"from": f"<{asked.sender or ''}>"},
    )


async def _sender(
    session: Session, transaction: Transaction, table: ListenerTable, layer: Layer
) -> tuple[Verdict, ...]:
    """What SPF says where it acts at RCPT. Looked up anew: the transaction's own may have ended."""
    policy = layer.policy.authentication
    if policy is None or not policy.spf.refuse or is_own(session, table):
        return ()
    aside = Transaction(transaction.mail, transaction.tables, table, None)
    asking = authentication.begin(session, aside, policy)
    if asking is None:
        return ()
    try:
        await asking.settle_sender()
        return asking.sender_verdicts(policy)
    finally:
        asking.close()


def _decide(
    session: Session,
    transaction: Transaction,
    table: ListenerTable,
    layer: Layer,
    asked: _Asked,
    client: ClientVerdicts,
    sender: tuple[Verdict, ...],
) -> Decision:
    rules = session.server.access.of(table)
    chain = None if rules is None else rules.chain
    own_rule = None if chain is None else chain.recipient(asked.recipient)
    client_rule = None if chain is None else chain.client(session.client, client.client.confirmed)
    granted = rules is not None and rules.clients_may_relay and _is(client_rule, Action.RELAY)
    if asked.domain is None:
        facts = msgspec.structs.replace(asked.facts, granted=granted or _is(own_rule, Action.RELAY))
        if relay_right(facts, transaction.tables, table) is None:
            return refusal_of(DENIED)
    decision = decide(())
    if not _is(own_rule, Action.ACCEPT):
        decision = decide(_verdicts(session, rules, layer, asked, client, sender, own=is_own(session, table)))
    if decision.strongest is not None and decision.strongest.refuses:
        return decision
    if asked.own.key in layer.traps:
        return refusal_of(TRAPPED)
    spared = is_own(session, table) or client.is_exempt or _is(client_rule, Action.ACCEPT, Action.RELAY)
    waits = None if spared or asked.domain is None else _grey(session, layer, asked)
    return decision if waits is None else refusal_of(waits)


def _verdicts(
    session: Session,
    rules: ListenerRules | None,
    layer: Layer,
    asked: _Asked,
    client: ClientVerdicts,
    sender: tuple[Verdict, ...],
    *,
    own: bool,
) -> list[Verdict]:
    """On the recipient, and where it is no role address (RFC 2142) on sender and client."""
    chain = None if rules is None else rules.chain
    found = [] if chain is None else [chain.recipient(asked.recipient)]
    known: tuple[Verdict, ...] = ()
    if asked.domain is None or not is_role_address(asked.recipient.local):
        client_rule = None if chain is None else chain.client(session.client, client.client.confirmed)
        if chain is not None:
            found.append(chain.sender(asked.sender))
            if session.account is None:
                found += [client_rule, chain.helo(asked.helo)]
        if not _is(client_rule, Action.ACCEPT, Action.RELAY):
            known = tuple(one for one in client.verdicts(own=own) if one.check not in layer.exempt)
        missing = () if rules is None or rules.missing is None else (rules.missing,)
        known = (*missing, *sender, *known)
    verdicts = [access_check.evaluate(rule) for rule in found]
    passing = (Action.ACCEPT, Action.RELAY)
    return [*(one for one in verdicts if one is not None and one.action not in passing), *known]


def _is(rule: AccessRule | None, *actions: Action) -> bool:
    return rule is not None and rule.action in actions


def refusal_of(reply: Reply) -> Decision:
    """A refusal as a decision."""
    action = Action.DEFER if reply.temporary else Action.REJECT
    return decide((Verdict(reply.check, action, reply, reason=reply.text),))


def _grey(session: Session, layer: Layer, asked: _Asked) -> Reply | None:
    """What greylisting would answer. Only read: what it would remember is not there, unless the real one is on."""
    policy = layer.policy.greylist
    if policy is None or is_role_address(asked.recipient.local):
        return None
    state, now_ms = session.server.deps.state, session.server.deps.now_ms()
    network = enclosing_network(session.client, policy.ipv4_prefix, policy.ipv6_prefix)
    if greylist.is_proven(state.get(GREYLIST, greylist.network_key(network), now_ms)):
        return None
    known = state.get(GREYLIST, greylist.key(network, str(asked.sender or ""), asked.recipient.key), now_ms)
    if known is None and not state.current:
        return None
    judgement = greylist.evaluate(policy, known, now_ms)
    return greylist.answer(judgement) if judgement.wait else None
