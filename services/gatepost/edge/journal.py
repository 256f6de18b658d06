"""What the edge tells about its decisions: one log line, one event and the metrics for each; alarms follow."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import structlog

from gatepost.core.checks.verdict import Decision, Verdict
from gatepost.core.envelope import Envelope
from gatepost.core.event_kinds import ACCEPTED, DISCARDED, JUDGED, REFUSED, SHADOWED
from gatepost.core.manifest.actions import Action
from gatepost.core.manifest.policy_layers import Mode
from gatepost.core.ports.events import Event
from gatepost.core.reply import Reply
from gatepost.edge import alarms
from gatepost.edge.dependencies import EdgeDependencies
from gatepost.telemetry import decisions, metrics
from gatepost.telemetry.decisions import decided
from gatepost.telemetry.tracing import TraceContext

if TYPE_CHECKING:
    from gatepost.edge.session import Session

SERVICE: Final = "edge"
# Of a message for hundreds of recipients a line or event names the first ones and their number.
MOST_NAMED: Final = 10

ASIDE: Final[ContextVar[bool]] = ContextVar("ASIDE", default=False)
"""Set where a policy in Shadow judges: nothing is told of its verdicts one by one, but by shadowed()."""

_log = structlog.get_logger("gatepost.edge")


def refused(deps: EdgeDependencies, session: Session, reply: Reply, recipient: str) -> None:
    """A refusal of any command, connection or message. `recipient` is the one it is about, or empty."""
    listener, code = session.listener.name, str(reply.code)
    metrics.REPLIES.add(listener, reply.check, code)
    transaction = session.transaction
    sender = "" if transaction is None else f"<{transaction.mail.address or ''}>"
    login = "" if session.account is None else session.account.name
    span = None if transaction is None else transaction.span
    trace_id = "" if span is None else span.context.trace_id
    attributes: dict[str, str | int | float | bool] = {
        "smtp.code": reply.code,
        "gatepost.check": reply.check,
        "client.address": session.client,
    }
    if span is not None:
        span.event("refused", recipient=recipient, **attributes)
    else:
        deps.tracer.failure("gatepost.edge refuse", None, reply.check, attributes)
    deps.events.emit(
        Event(
            session.id,
            REFUSED,
            deps.now_ms(),
            trace_id=trace_id,
            service=SERVICE,
            recipient=recipient,
            facts={
                "listener": listener,
                "client": session.client,
                "port": str(session.client_port),
                "helo": session.helo,
                "tls": session.tls,
                "login": login,
                "from": sender,
                "code": code,
                "enhanced": reply.enhanced,
                "check": reply.check,
                "text": reply.text,
            },
        )
    )
    decided(
        _log,
        "refused",
        decisions.DEFERRED if reply.temporary else decisions.REFUSED,
        listener=listener,
        client=session.client,
        port=session.client_port,
        helo=session.helo,
        login=login,
        **{"from": sender},
        to=f"<{recipient}>" if recipient else "",
        code=reply.code,
        enhanced=reply.enhanced,
        check=reply.check,
        text=reply.text,
        id=session.id,
    )
    alarms.after_refusal(deps, session, reply, recipient)


def judged(deps: EdgeDependencies, session: Session, verdict: Verdict) -> None:
    """A check has found something about a client, whatever becomes of it."""
    if ASIDE.get():
        return
    metrics.VERDICTS.add(session.listener.name, verdict.check, verdict.action.value)
    facts = {
        "listener": session.listener.name,
        "client": session.client,
        "helo": session.helo,
        "check": verdict.check,
        "action": verdict.action.value,
        "reason": verdict.told,
    }
    if verdict.score:
        facts["score"] = f"{verdict.score:g}"
    if session.transaction is not None:
        session.transaction.event("verdict", **facts)
    deps.events.emit(
        Event(session.id, JUDGED, deps.now_ms(), service=SERVICE, facts={**verdict.facts, **facts}),
    )
    _log.info("judged", id=session.id, found=verdict.facts, **facts)


def shadowed(
    deps: EdgeDependencies, session: Session, stage: str, policy: str, would: Decision, really: Action, **about: str
) -> None:
    """What a policy in Shadow would have done, beside what was done; told where it would have done anything."""
    action = Action.TAG if would.strongest is None and would.tags else would.action
    metrics.SHADOW.add(session.listener.name, stage, action.value, "yes" if action is really else "no")
    if action is Action.ACCEPT and really is Action.ACCEPT:
        return
    verdict = would.strongest or (would.tags[0] if would.tags else None)
    facts = {
        "mode": Mode.SHADOW.value,
        "policy": policy,
        "stage": stage,
        "action": action.value,
        "really": really.value,
        "listener": session.listener.name,
        "client": session.client,
        "check": "" if verdict is None else verdict.check,
        "reason": "" if verdict is None else verdict.told,
        **about,
    }
    recipient = about.get("to", "").strip("<>")
    deps.events.emit(Event(session.id, SHADOWED, deps.now_ms(), service=SERVICE, recipient=recipient, facts=facts))
    decided(_log, "shadow", _DECISIONS[action], id=session.id, **facts)


_DECISIONS: Final = {
    Action.REJECT: decisions.REFUSED,
    Action.DEFER: decisions.DEFERRED,
    Action.DISCARD: decisions.DISCARDED,
    Action.QUARANTINE: decisions.ACCEPTED,
    Action.TAG: decisions.ACCEPTED,
    Action.ACCEPT: decisions.ACCEPTED,
}


def discarded(deps: EdgeDependencies, session: Session, verdict: Verdict, recipient: str) -> None:
    """A recipient that was answered with 250 and gets nothing, because a policy says so."""
    if ASIDE.get():
        return
    facts = {
        "listener": session.listener.name,
        "client": session.client,
        "check": verdict.check,
        "reason": verdict.told,
    }
    deps.events.emit(Event(session.id, DISCARDED, deps.now_ms(), service=SERVICE, recipient=recipient, facts=facts))
    decided(_log, "discarded", decisions.DISCARDED, to=f"<{recipient}>", id=session.id, **facts)


def accepted(
    deps: EdgeDependencies, envelope: Envelope, trace: TraceContext, seconds: float, found: Mapping[str, str]
) -> None:
    """A message that was answered with 250. `seconds` passed between its last byte and being durable.

    `found` is what was found out about its sender (spf, dkim, dmarc, arc and what each is about).
    """
    client = envelope.client
    metrics.MESSAGES_ACCEPTED.add(client.listener)
    metrics.BYTES_ACCEPTED.add(client.listener, by=envelope.size)
    metrics.ACCEPT_SECONDS.record(seconds, client.listener)
    named = [f"<{recipient.address}>" for recipient in envelope.recipients[:MOST_NAMED]]
    recipients, sender = ",".join(named), f"<{envelope.reverse_path}>"
    size, count = str(envelope.size), str(len(envelope.recipients))
    deps.events.emit(
        Event(
            envelope.id,
            ACCEPTED,
            envelope.received_ms,
            trace_id=trace.trace_id,
            service=SERVICE,
            facts={
                "listener": client.listener,
                "client": client.address,
                "port": str(client.port),
                "helo": client.helo,
                "tls": client.tls,
                "login": client.login,
                "from": sender,
                "to": recipients,
                "recipients": count,
                "size": size,
                "sha256": envelope.sha256,
                **found,
            },
        )
    )
    decided(
        _log,
        "accepted",
        decisions.ACCEPTED,
        listener=client.listener,
        client=client.address,
        port=client.port,
        helo=client.helo,
        login=client.login,
        **{"from": sender},
        to=recipients,
        recipients=count,
        size=envelope.size,
        seconds=round(seconds, 4),
        **found,
        id=envelope.id,
        trace=trace.trace_id,
    )
    alarms.after_acceptance(deps, envelope)
