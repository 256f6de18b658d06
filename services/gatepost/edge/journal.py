"""What the edge tells about its decisions: one log line, one event and the metrics for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from gatepost.core.envelope import Envelope
from gatepost.core.event_kinds import ACCEPTED, REFUSED
from gatepost.core.ports.events import Event
from gatepost.core.reply import Reply
from gatepost.edge.dependencies import EdgeDependencies
from gatepost.telemetry import metrics
from gatepost.telemetry.tracing import TraceContext

if TYPE_CHECKING:
    from gatepost.edge.session import Session

SERVICE: Final = "edge"
# Of a message for hundreds of recipients a line or event names the first ones and their number.
MOST_NAMED: Final = 10

_log = structlog.get_logger("gatepost.edge")


def refused(deps: EdgeDependencies, session: Session, reply: Reply, recipient: str) -> None:
    """A refusal of any command, connection or message. `recipient` is the one it is about, or empty."""
    listener, code = session.listener.name, str(reply.code)
    metrics.REPLIES.add(listener, reply.check, code)
    transaction = session.transaction
    sender = "" if transaction is None else f"<{transaction.mail.address or ''}>"
    span = None if transaction is None else transaction.span
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
            trace_id="" if span is None else span.context.trace_id,
            service=SERVICE,
            recipient=recipient,
            facts={
                "listener": listener,
                "client": session.client,
                "helo": session.helo,
                "from": sender,
                "code": code,
                "enhanced": reply.enhanced,
                "check": reply.check,
                "text": reply.text,
            },
        )
    )
    _log.info(
        "refused",
        decision="refused",
        listener=listener,
        client=session.client,
        helo=session.helo,
        **{"from": sender},
        to=recipient,
        code=reply.code,
        enhanced=reply.enhanced,
        check=reply.check,
        text=reply.text,
        id=session.id,
    )


def accepted(deps: EdgeDependencies, envelope: Envelope, trace: TraceContext, seconds: float) -> None:
    """A message that was answered with 250. `seconds` passed between its last byte and being durable."""
    client = envelope.client
    metrics.MESSAGES_ACCEPTED.add(client.listener)
    metrics.BYTES_ACCEPTED.add(client.listener, by=envelope.size)
    metrics.ACCEPT_SECONDS.record(seconds, client.listener)
    recipients = ",".join(recipient.address for recipient in envelope.recipients[:MOST_NAMED])
    sender = f"<{envelope.reverse_path}>"
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
                "helo": client.helo,
                "login": client.login,
                "from": sender,
                "to": recipients,
                "recipients": count,
                "size": size,
            },
        )
    )
    _log.info(
        "accepted",
        decision="accepted",
        listener=client.listener,
        client=client.address,
        helo=client.helo,
        login=client.login,
        **{"from": sender},
        to=recipients,
        recipients=count,
        size=envelope.size,
        seconds=round(seconds, 4),
        id=envelope.id,
        trace=trace.trace_id,
    )
