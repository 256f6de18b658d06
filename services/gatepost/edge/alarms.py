"""Alarms on abuse from the edge's decisions: a warning in the log, an event and a metric; nothing is refused.

What is counted stands in core/abuse.py, from how many on in the settings (telemetry.alarms).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from gatepost.core import smtp_replies as say
from gatepost.core.abuse import MEANING, AbuseWatch, Alarm, Kind, Limits, Sighting, network_of
from gatepost.core.checks import recipient as recipient_check
from gatepost.core.envelope import Envelope, Trust
from gatepost.core.event_kinds import ALARM
from gatepost.core.manifest.quantities import seconds
from gatepost.core.manifest.settings import AlarmSettings
from gatepost.core.message import date_time
from gatepost.core.networks import NetworkSet
from gatepost.core.ports.events import Event
from gatepost.core.relay_right import DENIED
from gatepost.core.reply import Reply
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from gatepost.edge.dependencies import EdgeDependencies
    from gatepost.edge.session import Session

_log = structlog.get_logger("gatepost.edge")

_REFUSALS = {
    (DENIED.check, DENIED.code): Kind.RELAY,
    (recipient_check.UNKNOWN.check, recipient_check.UNKNOWN.code): Kind.UNKNOWN,
    (say.AUTH_REFUSED.check, say.AUTH_REFUSED.code): Kind.AUTH,
}


class Watch:
    """What one edge has seen, and the networks that may send to any number of recipients."""

    def __init__(self, settings: AlarmSettings) -> None:
        self.counts = AbuseWatch(
            Limits(
                seconds(settings.window),
                {
                    Kind.RELAY: settings.relay_attempts,
                    Kind.AUTH: settings.auth_failures,
                    Kind.UNKNOWN: settings.unknown_recipients,
                    Kind.BOMBING: settings.messages_to_recipient,
                    Kind.SENDING: settings.recipients_of_sender,
                },
            )
        )
        self.exempt = NetworkSet(settings.many_recipients_from)


def after_refusal(deps: EdgeDependencies, session: Session, reply: Reply, recipient: str) -> None:
    """Count a refusal under the client's network."""
    kind = _REFUSALS.get((reply.check, reply.code))
    if kind is None or (kind is Kind.UNKNOWN and reply.enhanced != recipient_check.UNKNOWN.enhanced):
        return
    login = "" if session.account is None else session.account.name
    _see(
        deps,
        Sighting(
            kind,
            network_of(session.client),
            deps.now_ms(),
            session.id,
            session.client,
            session.helo,
            login,
            recipient,
        ),
    )


def failed_login(deps: EdgeDependencies, session: Session, login: str) -> None:
    """Count a failed AUTH under the account that was tried, wherever it came from."""
    account = login.lower()
    _see(deps, Sighting(Kind.AUTH, account, deps.now_ms(), session.id, session.client, session.helo, login=account))


def after_acceptance(deps: EdgeDependencies, envelope: Envelope) -> None:
    """Count a message under each recipient, and its recipients under a sender of ours."""
    client, counts = envelope.client, deps.abuse.counts
    if counts.watches(Kind.BOMBING):
        for recipient in envelope.recipients:
            _see(
                deps,
                Sighting(
                    Kind.BOMBING,
                    recipient.address.lower(),
                    envelope.received_ms,
                    envelope.id,
                    client.address,
                    client.helo,
                    client.login,
                    envelope.reverse_path or "<>",
                ),
            )
    if envelope.trust is Trust.AUTHENTICATED and client.address not in deps.abuse.exempt:
        _see(
            deps,
            Sighting(
                Kind.SENDING,
                client.login or client.address,
                envelope.received_ms,
                envelope.id,
                client.address,
                client.helo,
                client.login,
                envelope.recipients[-1].address,
                len(envelope.recipients),
            ),
        )


def _see(deps: EdgeDependencies, sighting: Sighting) -> None:
    alarm = deps.abuse.counts.see(sighting)
    if alarm is not None:
        _tell(deps, alarm)


def _tell(deps: EdgeDependencies, alarm: Alarm) -> None:
    metrics.ALARMS.add(alarm.kind.value)
    facts = {
        "alarm": alarm.kind.value,
        "meaning": MEANING[alarm.kind],
        "subject": alarm.subject,
        "count": str(alarm.count),
        "limit": str(alarm.limit),
        "window": f"{alarm.window_s:g}s",
        "since": date_time(alarm.first_ms),
        "first_id": alarm.first_id,
        "last_id": alarm.last_id,
        "client": alarm.clients[-1] if alarm.clients else "",
        "clients": ",".join(alarm.clients),
        "helo": alarm.helo,
        "login": alarm.login,
        "targets": ",".join(alarm.targets),
    }
    deps.events.emit(Event(alarm.last_id, ALARM, alarm.last_ms, service="edge", facts=facts))
    _log.warning("alarm", **facts, id=alarm.last_id)
