"""POP before SMTP at work: has a client's address just logged in at the mailbox server, as any edge was told?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatepost.core.configuration import ListenerPolicy
from gatepost.core.pop_before_smtp import POP_LOGIN, address_key, may_relay

if TYPE_CHECKING:
    from gatepost.edge.session import Session


def knows(session: Session, policy: ListenerPolicy) -> bool:
    """Whether a policy has a window and the client is within it: one look into memory, none without a window."""
    window = policy.pop_before_smtp
    if not window:
        return False
    try:
        key = address_key(session.client)
    except ValueError:
        return False  # a link-local address with its zone
    deps = session.server.deps
    now_ms = deps.now_ms()
    return may_relay(deps.state.get(POP_LOGIN, key, now_ms), window, now_ms)
