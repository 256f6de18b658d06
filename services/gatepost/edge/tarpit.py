"""Slows a session down that was refused too often: each further command waits, at no cost but a timer.

The wire keeps what the client sends meanwhile (edge/wire.py `slow`), so that a guesser who does not read replies
waits as well. Own clients never wait: a list's server may well name ten people who have left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatepost.edge.client_verdicts import is_own
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from gatepost.edge.session import Session


def after_error(session: Session) -> None:
    """A command was refused for good: slow the session down from now on if its policy says so."""
    policy = session.policy
    if not policy.error_delay or session.slow or session.errors < policy.errors_before_delay or is_own(session):
        return
    session.slow = policy.error_delay
    metrics.SLOWED.add(session.listener.name)
