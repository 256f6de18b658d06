"""Bans at work: what leads to one at this edge, and who is refused because of one that any edge has made.

    at_connect       421 to a banned client, unless it could still show that it is one of ours
    refuses          the same at RCPT, for those, and for sessions that were open when the ban came
    recipient_named  counted where the policy watches for harvests
    login_tried      the same for passwords that are guessed; an account that is tried too often is only slowed down

Own clients (AUTH, relay networks, allowed ones, access rules Accept and Relay) are neither counted nor refused. A
ban is written without waiting; an edge that has not read it yet, or whose log is away, refuses a little later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import structlog

from gatepost.core import smtp_replies as say
from gatepost.core.bans import BAN, Ban, BanCause, BanIndex, account_key, client_key, subject_of
from gatepost.core.checks import auth_failures, harvest
from gatepost.core.event_kinds import BANNED
from gatepost.core.manifest.actions import Action
from gatepost.core.networks import enclosing_network
from gatepost.core.ports.events import Event
from gatepost.core.ports.state import State
from gatepost.core.reply import Reply
from gatepost.core.tables import ListenerTable
from gatepost.edge.client_verdicts import is_own
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from gatepost.edge.session import Session

SERVICE: Final = "edge"
# Policies with windows of their own; an old one is dropped when there are more.
MOST_WINDOWS: Final = 64

_log = structlog.get_logger("gatepost.edge")


class Bans:
    """Every ban in force, from the shared memory, and this edge's counts."""

    def __init__(self, state: State, now_ms: Callable[[], int]) -> None:
        self._state, self._now_ms = state, now_ms
        self._index = BanIndex()
        self._watches: dict[tuple[BanCause, str, float], harvest.HarvestWatch] = {}
        state.on_change(BAN, self._changed)

    def __bool__(self) -> bool:
        """Whether anybody is banned: nearly always nobody, and then nothing is looked up."""
        return bool(self._index)

    def client(self, address: str) -> Ban | None:
        return self._index.client(address, self._now_ms())

    def named(self, key: str) -> Ban | None:
        """The ban of an account or a sender."""
        return self._index.named(key, self._now_ms())

    def watch(self, cause: BanCause, window: float, of: str = "clients") -> harvest.HarvestWatch:
        """The counts of one thing over a window of so many seconds."""
        key = (cause, of, window)
        found = self._watches.get(key)
        if found is None:
            if len(self._watches) >= MOST_WINDOWS:
                del self._watches[next(iter(self._watches))]
            found = self._watches[key] = harvest.HarvestWatch(window)
        return found

    def put(self, key: str, ban: Ban) -> None:
        """Ban at once here, and at the other edges as soon as they have read it."""
        self._index.put(key, ban)
        self._state.put_soon(BAN, key, ban, ban.until_ms)

    def _changed(self, key: str, ban: Ban | None) -> None:
        if ban is None:
            self._index.discard(key)
        else:
            self._index.put(key, ban)


def at_connect(session: Session, table: ListenerTable) -> Reply | None:
    """The refusal of a client that is banned; None also for one that may yet turn out to be ours."""
    bans = session.server.bans
    if not bans:
        return None
    ban = bans.client(session.client)
    if ban is None or _known_good(session, table) or (ban.cause in _EARNED and _may_prove_itself(session, table)):
        return None
    return say.BANNED


# What a neighbour behind the same address may have done: whoever logs in, or has a name that counts, is heard.
_EARNED: Final = frozenset({BanCause.HARVEST, BanCause.TRAP})


def refuses(session: Session) -> bool:
    """Whether the session is ended here, because its client is banned and has shown no right meanwhile."""
    bans = session.server.bans
    if not bans or bans.client(session.client) is None or is_exempt(session):
        return False
    session.goodbye(say.BANNED)
    return True


def recipient_named(session: Session, *, unknown: bool) -> None:
    """Count a recipient of a served domain where the policy asks for it; ban who guesses."""
    policy = session.policy.harvest
    if policy is None or is_exempt(session):
        return
    bans, deps = session.server.bans, session.server.deps
    network, now_ms = network_of(session), deps.now_ms()
    watch = bans.watch(BanCause.HARVEST, policy.window)
    count = watch.see(network, unknown=unknown, at_ms=now_ms)
    if unknown and harvest.evaluate(policy, count):
        watch.forget(network)
        reason = f"{count.unknown} of {count.named} recipients unknown within {policy.window:g} s"
        ban(session, client_key(network), policy.ban, BanCause.HARVEST, reason)


def login_tried(session: Session, login: str, *, failed: bool) -> None:
    """Count a login whose password was checked; ban the address that guesses, slow the account that is guessed."""
    policy = session.policy.auth_failures
    if policy is None:
        return
    bans, now_ms = session.server.bans, session.server.deps.now_ms()
    address = enclosing_network(session.client, auth_failures.IPV4_PREFIX, auth_failures.IPV6_PREFIX)
    subjects = [("accounts", account_key(login))]
    if not _known_good(session, session.table):
        subjects.append(("clients", client_key(address)))
    for of, key in subjects:
        watch = bans.watch(BanCause.AUTH, policy.window, of)
        count = watch.see(key, unknown=failed, at_ms=now_ms)
        if failed and auth_failures.is_too_many(policy, count):
            watch.forget(key)
            reason = f"{count.unknown} of {count.named} logins failed within {policy.window:g} s"
            ban(session, key, policy.ban, BanCause.AUTH, reason)


def login_delay(session: Session, login: str) -> float:
    """Seconds that any try for this account waits, the right one as well; 0 for one that nobody guesses."""
    policy, bans = session.policy.auth_failures, session.server.bans
    return policy.delay if policy is not None and bans and bans.named(account_key(login)) is not None else 0.0


def ban(session: Session, key: str, lasting: float, cause: BanCause, reason: str) -> None:
    """Ban for so many seconds, and tell it: a log line, an event, a metric."""
    deps = session.server.deps
    now_ms = deps.now_ms()
    session.server.bans.put(key, Ban(now_ms, now_ms + int(lasting * 1000), cause, reason, session.id))
    metrics.BANS.add(cause.value)
    facts = {
        "subject": subject_of(key),
        "cause": cause.value,
        "reason": reason,
        "seconds": f"{lasting:g}",
        "listener": session.listener.name,
        "client": session.client,
        "helo": session.helo,
    }
    deps.events.emit(Event(session.id, BANNED, now_ms, service=SERVICE, facts=facts))
    _log.warning("banned", id=session.id, **facts)


def network_of(session: Session) -> str:
    """The network that the session's client is counted and banned under."""
    policy = session.policy
    return enclosing_network(session.client, policy.network_ipv4_prefix, policy.network_ipv6_prefix)


def is_exempt(session: Session) -> bool:
    """Whether a client is one of ours, or let in by a policy: by all that is known of it now."""
    table, known = session.table, session.verdicts
    if is_own(session) or (session.certificate is not None and session.certificate in table.certificates):
        return True
    names = () if known is None else known.client.confirmed
    if known is not None and table.client_checks is not None and table.client_checks.listed(known.client) is True:
        return True
    rules = session.server.access.of(table)
    rule = None if rules is None else rules.chain.client(session.client, names)
    return rule is not None and rule.action in (Action.ACCEPT, Action.RELAY)


def _known_good(session: Session, table: ListenerTable) -> bool:
    """By the address alone: nothing else is known when a client connects."""
    if table.is_relay_client(session.client):
        return True
    if table.client_checks is not None and table.client_checks.rules.by_address(session.client) is True:
        return True
    rules = session.server.access.of(table)
    rule = None if rules is None else rules.chain.client(session.client, ())
    return rule is not None and rule.action in (Action.ACCEPT, Action.RELAY)


def _may_prove_itself(session: Session, table: ListenerTable) -> bool:
    """Whether a login, a certificate or a confirmed host name could still show that a client is one of ours."""
    rules = session.server.access.of(table)
    by_name = table.client_checks is not None and table.client_checks.rules.allows_names
    by_name = by_name or (rules is not None and rules.chain.by_host_name)
    return table.policy.auth_enabled or table.certificates.asks(session.client) or by_name
