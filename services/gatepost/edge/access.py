"""Access rules at work: the tables in force for each listener, and what they say of one transaction.

Looked up when the first recipient is named, once for the client, its greeting and the sender; the recipient's own
rule comes first of all and can exempt it from the others (sendmail's delay_checks). A listener whose policy has no
rules costs one look into an empty dict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from gatepost.core.access.table import AccessChain, AccessRule
from gatepost.core.address import Address
from gatepost.core.checks import access as check
from gatepost.core.checks.verdict import NOTHING, Decision, Verdict
from gatepost.core.client_facts import Outcome
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.ports.access_tables import AccessTables
from gatepost.core.relay_right import DENIED, RelayFacts
from gatepost.core.reply import Reply
from gatepost.core.tables import ListenerTable, Tables
from gatepost.edge import journal
from gatepost.edge.client_verdicts import decision_for, verdicts_of

if TYPE_CHECKING:
    from gatepost.edge.session import Session
    from gatepost.edge.transaction import Transaction

RELAY_UNRESOLVED: Final = Reply(
    450, "4.4.3", "your host name cannot be looked up now, and by it you may relay or not; try again later", "relay"
)

_log = structlog.get_logger("gatepost.access")


class ListenerRules(msgspec.Struct, frozen=True):
    """What one policy asks. `missing`: a table without which nothing may be taken is not loaded."""

    table: ListenerTable
    chain: AccessChain
    clients_may_relay: bool
    missing: Verdict | None


class TransactionAccess(msgspec.Struct, frozen=True):
    """The rules of the moment when the first recipient was named, and the client's own one."""

    rules: ListenerRules
    client: AccessRule | None
    unresolved: bool


class AccessBook:
    """The rules of every listener that has any, by its table's name. `changed` is called after a table changed."""

    def __init__(self, source: AccessTables | None, changed: Callable[[], None]) -> None:
        self.rules: dict[str, ListenerRules] = {}
        self._source, self._changed = source, changed
        self._tables: Tables | None = None
        if source is not None:
            source.on_change(self._refreshed)

    def of(self, table: ListenerTable) -> ListenerRules | None:
        """The rules of a policy, also of one that a transaction is pinned to and that is in force no more."""
        if table.access is None:
            return None
        known = self.rules.get(table.name)
        return known if known is not None and known.table is table else self._of(table.name, table)

    def configure(self, tables: Tables) -> None:
        """Put a configuration's rules in force."""
        self._tables = tables
        if self._source is not None:
            configs = [t.policy.access for t in tables.all_listeners() if t.policy.access is not None]
            wanted: dict[str, float] = {}
            for table in (table for config in configs for table in config.tables):
                wanted[table.file] = min(table.refresh, wanted.get(table.file, table.refresh))
            self._source.want(wanted)
        self._build()

    def _refreshed(self) -> None:
        self._build()
        self._changed()

    def _build(self) -> None:
        if self._tables is not None:
            made = {table.name: self._of(table.name, table) for table in self._tables.all_listeners()}
            self.rules = {name: rules for name, rules in made.items() if rules is not None}

    def _of(self, listener: str, table: ListenerTable) -> ListenerRules | None:
        config = table.policy.access
        if config is None or table.access is None:
            return None
        missing, found = None, [table.access]
        for one in config.tables:
            loaded = None if self._source is None else self._source.table(one.file)
            if loaded is not None:
                found.append(loaded)
                if loaded.lets_clients_relay and not config.clients_may_relay:
                    _log.warning("access.relay_ignored", listener=listener, file=one.file, reason=_IGNORED)
            elif one.on_error is OnError.TEMPFAIL and missing is None:
                missing = check.missing(one.file)
        return ListenerRules(table, AccessChain(found), config.clients_may_relay, missing)


_IGNORED: Final = "clients relay by their address on internal listeners, or with relay.allowOnPublicListeners"


def _access_of(session: Session, transaction: Transaction) -> TransactionAccess | None:
    """What the rules say of client, greeting and sender; judged once for a transaction. None without rules."""
    if transaction.access is None:
        rules = session.server.access.of(transaction.table)
        if rules is not None:
            transaction.access = _judge(session, transaction, rules)
    return transaction.access


def _judge(session: Session, transaction: Transaction, rules: ListenerRules) -> TransactionAccess:
    chain, known = rules.chain, session.verdicts
    names = () if known is None else known.client.confirmed
    client = chain.client(session.client, names)
    found = [chain.sender(transaction.mail.address)]
    if session.account is None:
        found = [client, chain.helo(session.helo), *found]  # who has logged in is known by that, not by the line
    checked = known is not None or transaction.authentication is not None
    if client is not None and client.action in (Action.ACCEPT, Action.RELAY) and checked:
        verdicts_of(session).exempt()
    verdicts = [check.evaluate(rule) for rule in found]
    for verdict in (*verdicts, rules.missing):
        if verdict is not None and verdict.action not in (Action.ACCEPT, Action.RELAY):
            transaction.verdicts.append(verdict)
            journal.judged(session.server.deps, session, verdict)
    unresolved = known is not None and Outcome.FAILED in (known.client.reverse, known.client.forward)
    return TransactionAccess(rules, client, unresolved and not names and chain.by_host_name)


def decide(session: Session, transaction: Transaction, recipient: Address) -> Decision:
    """What the access rules and every other check amount to for a recipient."""
    access = _access_of(session, transaction)
    if access is None:
        return decision_for(session, transaction, recipient)
    verdict = check.evaluate(access.rules.chain.recipient(recipient))
    if verdict is None or verdict.action is Action.RELAY:
        return decision_for(session, transaction, recipient)
    journal.judged(session.server.deps, session, verdict)
    if verdict.action is Action.ACCEPT:
        transaction.exempt.add(recipient.key)
        return NOTHING
    return decision_for(session, transaction, recipient, (verdict,))


def grants(session: Session, transaction: Transaction, recipient: Address) -> bool:
    """Whether a rule lets this client relay, or everybody send to this recipient."""
    access = _access_of(session, transaction)
    if access is None:
        return False
    if access.rules.clients_may_relay and access.client is not None and access.client.action is Action.RELAY:
        return True
    rule = access.rules.chain.recipient(recipient)
    return rule is not None and rule.action is Action.RELAY


def denial(session: Session, transaction: Transaction) -> Reply:
    """The answer to who may not relay: temporary when a table or a name that is away now could change it."""
    access = _access_of(session, transaction)
    if access is None:
        return DENIED
    if access.rules.missing is not None:
        return access.rules.missing.answer
    return RELAY_UNRESOLVED if access.unresolved and access.rules.clients_may_relay else DENIED


def again(session: Session, facts: RelayFacts) -> RelayFacts:
    """The facts of a right that was granted, with what the rules say now."""
    if not facts.granted:
        return facts
    table = session.listener.table_for(facts.client)
    rules = None if table is None else session.server.access.of(table)
    if rules is None:
        return msgspec.structs.replace(facts, granted=False)
    names = () if session.verdicts is None else session.verdicts.client.confirmed
    client, recipient = rules.chain.client(facts.client, names), rules.chain.recipient(facts.recipient)
    by_client = rules.clients_may_relay and client is not None and client.action is Action.RELAY
    return msgspec.structs.replace(
        facts, granted=by_client or (recipient is not None and recipient.action is Action.RELAY)
    )
