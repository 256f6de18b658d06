"""What is known about a session's client and concluded from it: gathered in the background, applied at RCPT.

    connected -> greeted -> sender        each starts the look-ups of its stage, nobody waits for them yet
    settle                                awaited at the first RCPT: each stage has its own deadline
    decision_for                          what all verdicts amount to for one recipient

Look-ups and rules are the policy's (core/client_checks.py); access rules and others give their verdicts by `add`.
A session whose policy has none of this has no ClientVerdicts (session.verdicts is None) and costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final

import structlog

from gatepost.core.address import Address
from gatepost.core.checks.helo import helo_domain
from gatepost.core.checks.verdict import NOTHING, Decision, Verdict, decide, is_role_address
from gatepost.core.client_checks import ClientChecks
from gatepost.core.client_facts import ClientFacts, HeloFacts, SenderFacts
from gatepost.core.ports.resolver import Resolver
from gatepost.core.tables import ListenerTable
from gatepost.edge import journal, pop_before_smtp
from gatepost.edge.client_facts import look_up_client, look_up_helo, look_up_sender
from gatepost.edge.lists import Lists

if TYPE_CHECKING:
    from gatepost.edge.session import Session
    from gatepost.edge.transaction import Transaction

# Every stage's look-ups have deadlines of their own; this only bounds a fault of ours. A client waits 5 minutes for
# the answer to RCPT (RFC 5321 4.5.3.2.3).
SETTLE_LIMIT: Final = 60.0

_log = structlog.get_logger("gatepost.edge")

Facts = ClientFacts | HeloFacts | SenderFacts


class ClientVerdicts:
    """Of one session under one policy. Owns the tasks that look things up; close() cancels them."""

    def __init__(self, session: Session, checks: ClientChecks | None) -> None:
        self._session, self._checks = session, checks
        self._tasks: set[asyncio.Task[None]] = set()
        self._client, self._helo, self._sender = ClientFacts(session.client), HeloFacts(), SenderFacts()
        self._rules: list[Verdict] = []
        self._found: tuple[Verdict, ...] | None = None
        self._told: set[tuple[str, str]] = set()
        self._exempt = False

    # -- for other checks

    def add(self, verdict: Verdict) -> None:
        """A verdict on the client that stands whatever is looked up: of an administrator's own rule."""
        self._rules.append(verdict)
        self._tell((verdict,))

    def exempt(self) -> None:
        """The client is known to be good: what is looked up about it has no effect. Verdicts by add() have."""
        self._exempt = True

    @property
    def is_exempt(self) -> bool:
        """Whether the client is known to be good: by exempt(), or by the administrator's own list."""
        return self._exempt or (self._checks is not None and self._checks.listed(self._client) is True)

    @property
    def client(self) -> ClientFacts:
        """The client's names and listings as far as they are known; all of it once it is settled."""
        return self._client

    # -- the stages

    def connected(self) -> None:
        if self._checks is not None and self._checks.asks_about_client:
            self._start(look_up_client(self._checks, *self._asking, self._client.address))

    def greeted(self, name: str) -> None:
        """EHLO or HELO gave a name; what was found about another one is forgotten."""
        checks = self._checks
        if checks is None or name == self._helo.name:
            return
        self._helo, self._found = HeloFacts(name), None
        if checks.asks_about_helo(name):
            self._start(look_up_helo(checks, *self._asking, name))

    def sender(self, address: Address | None) -> None:
        """MAIL named a sender; the null sender and an address literal have no domain to look up."""
        domain = "" if address is None or address.is_literal else address.domain
        checks = self._checks
        if checks is None or domain == self._sender.domain:
            return
        self._sender, self._found = SenderFacts(domain), None
        if domain and checks.asks_about_sender:
            self._start(look_up_sender(checks, *self._asking, domain))

    @property
    def settled(self) -> bool:
        return not self._tasks

    async def settle(self) -> None:
        """Wait until everything that was started has an answer or has failed."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=SETTLE_LIMIT)

    def close(self) -> None:
        """Nobody asks any more."""
        for task in self._tasks:
            task.cancel()

    # -- the conclusion

    def verdicts(self, *, own: bool) -> tuple[Verdict, ...]:
        """All that are known now. `own`: one that may relay here or has logged in; it is not looked into."""
        listed = None if self._checks is None else self._checks.listed(self._client)
        rules = tuple(self._rules)
        if isinstance(listed, Verdict):
            rules = (*rules, listed)
            self._tell((listed,))
        return rules if own or self._exempt or listed is True else (*rules, *self._looked_up())

    def _looked_up(self) -> tuple[Verdict, ...]:
        if self._found is None:
            self._found = ()
            if self._checks is not None:
                self._found = self._checks.judge(self._client, self._helo, self._sender, self._own_names())
            self._tell(self._found)
        return self._found

    def _own_names(self) -> frozenset[str]:
        """Names that only we may greet with: this host's, and the greeting itself if it is a domain served here."""
        own = self._session.own_hosts
        name = helo_domain(self._helo.name)
        served = None if name is None else self._session.server.tables.domain(name)
        if name is not None and served is not None and name in (served.domain, *served.alias_domains):
            return own | {name}
        return own

    def _tell(self, verdicts: Iterable[Verdict]) -> None:
        """Each verdict of a session is told once; to a policy in Shadow it is not."""
        if journal.ASIDE.get():
            return
        new = [one for one in verdicts if (one.check, one.told) not in self._told]
        for verdict in new:
            self._told.add((verdict.check, verdict.told))
            journal.judged(self._session.server.deps, self._session, verdict)

    # -- tasks

    @property
    def _asking(self) -> tuple[Resolver, Lists]:
        server = self._session.server
        return server.deps.resolver, server.lists

    def _start(self, looking: Coroutine[Any, Any, Facts]) -> None:
        task = self._session.loop.create_task(self._keep(looking))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, looking: Coroutine[Any, Any, Facts]) -> None:
        try:
            found = await looking
        except Exception:
            _log.exception("internal error while looking up a client", client=self._client.address)
            return
        match found:
            case ClientFacts():
                self._client = found
            case HeloFacts() if found.name == self._helo.name:
                self._helo = found
            case SenderFacts() if found.domain == self._sender.domain:
                self._sender = found
        self._found = None


def begin(session: Session, table: ListenerTable) -> None:
    """A policy is in force for a session from now on: gather what it asks for, and no longer what another did."""
    if session.verdicts is not None:
        session.verdicts.close()
        session.verdicts = None
    if table.client_checks is None:
        return
    session.verdicts = ClientVerdicts(session, table.client_checks)
    session.verdicts.connected()
    if session.helo:
        session.verdicts.greeted(session.helo)


def verdicts_of(session: Session) -> ClientVerdicts:
    """The session's, made when it has none yet: for checks that are not looked up."""
    if session.verdicts is None:
        session.verdicts = ClientVerdicts(session, None)
    return session.verdicts


def is_own(session: Session, table: ListenerTable | None = None) -> bool:
    """Whether the client is ours: logged in (by POP, too), with our certificate, or in a network that may relay.

    By the session's policy, or by another one.
    """
    table = table or session.table
    if session.account is not None or table.is_relay_client(session.client):
        return True
    if pop_before_smtp.knows(session, table.policy):
        return True
    return session.certificate is not None and session.certificate in table.certificates


def decision_for(
    session: Session, transaction: Transaction, recipient: Address, more: Iterable[Verdict] = ()
) -> Decision:
    """What all verdicts amount to for a recipient of a served domain, or for one that is relayed to.

    `more` are verdicts on the recipient itself. Only these reach a role address (RFC 2142).
    """
    authentication = transaction.authentication
    if session.verdicts is None and not transaction.verdicts and authentication is None:
        return decide(more) if more else NOTHING
    if is_role_address(recipient.local) and transaction.tables.home(recipient) is not None:
        return decide(more)
    layer = transaction.layer_of(recipient, session.client)
    known = () if session.verdicts is None else session.verdicts.verdicts(own=is_own(session))
    sender = () if authentication is None else authentication.sender_verdicts(layer.policy.authentication)
    if layer.exempt:
        known = tuple(verdict for verdict in known if verdict.check not in layer.exempt)
    return decide((*more, *transaction.verdicts, *sender, *known))
