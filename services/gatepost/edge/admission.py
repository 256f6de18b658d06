"""Is a connection taken at all? What the process, its listener and the client's address allow, before the greeting.

Limits keep one client from taking the place of all others, so they answer 421 at once. A client that a policy does
not want is judged later, at RCPT, where the postmaster can still be reached (edge/client_verdicts.py).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gatepost.core import smtp_replies as say
from gatepost.core.reply import Reply
from gatepost.core.tables import ListenerTable
from gatepost.edge.bans import at_connect
from gatepost.edge.early import spoke_first

if TYPE_CHECKING:
    from gatepost.edge.session import Session


def refusal_of(session: Session) -> Reply | None:
    """Why a connection that was just made is refused; None when it is taken."""
    server, listener = session.server, session.listener
    table = listener.table
    if table is None:
        return say.NO_CONFIGURATION
    if server.draining:
        return say.DRAINING
    if not server.deps.log.available:
        return say.LOG_AWAY
    if session.arrival is None and server.open_connections > server.max_sessions:  # else the doorway has looked
        return say.TOO_MANY_SESSIONS
    if listener.sessions >= table.policy.total_concurrent:
        return say.TOTAL_CONCURRENT
    limit = limit_of(session, table.for_client(session.client))
    if limit is not None:
        return limit
    if not session.tls and spoke_first(session.transport):
        return say.EARLY_TALKER
    return None


def limit_of(session: Session, table: ListenerTable) -> Reply | None:
    """Why the client may have no session more; None when it may, or a policy lets it in by its address."""
    return None if _allowed(table, session.client) else at_connect(session, table) or _limit(session, table)


def _limit(session: Session, table: ListenerTable) -> Reply | None:
    """The limits of one client and its neighbours."""
    policy, listener, client = table.policy, session.listener, session.client
    if listener.hosts.get(client, 0) >= policy.per_host_concurrent:
        return say.HOST_CONCURRENT
    if policy.per_network_concurrent and listener.neighbours(client) >= policy.per_network_concurrent:
        return say.NETWORK_CONCURRENT
    if not policy.per_host_rate or table.is_relay_client(client):
        return None
    # Refused ones count too: whoever goes on at that rate stays out.
    arrivals = listener.arrivals.count(client, session.loop.time())
    return say.HOST_RATE if arrivals > policy.per_host_rate else None


def _allowed(table: ListenerTable, client: str) -> bool:
    """Only by address: a name is not known yet."""
    return table.client_checks is not None and table.client_checks.rules.by_address(client) is True


def greeting_delay(session: Session) -> float:
    """Seconds for which the greeting is held back; 0 for clients of ours and allowed ones."""
    table = session.table
    delay = table.policy.banner_delay
    return 0.0 if not delay or _allowed(table, session.client) or table.is_relay_client(session.client) else delay


async def greet_later(session: Session, delay: float) -> None:
    """Hold the greeting back; a client that does not wait for it is no mail server (RFC 5321 3.1)."""
    await asyncio.sleep(delay)
    if session.pending:
        session.goodbye(say.EARLY_TALKER)
    elif session.server.draining:
        session.goodbye(say.DRAINING)
    else:
        session.write(session.server.greeting)
