"""What follows an attempt to deliver: retry tiers for what may still succeed, notifications for what cannot.

Pure: the mailbox service and the relay append what comes out before they finish their input (G2).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gatepost.core.configuration import RetryPlan
from gatepost.core.dsn import Action, Fate, failure_notification, may_notify, success_notification
from gatepost.core.envelope import Envelope, Recipient
from gatepost.core.ports.log import Entry
from gatepost.core.ports.transport import RemoteReply
from gatepost.core.records import Item, work_entry
from gatepost.core.reply import Reply
from gatepost.core.retry import GiveUp, TryAgain, deferred, next_attempt
from gatepost.core.stopped import stopped_notification
from gatepost.core.topics import Topics


class Attempt(msgspec.Struct, frozen=True):
    """The last word on one recipient: 2xx done, 4xx later, 5xx never."""

    recipient: Recipient
    reply: RemoteReply


class Told(msgspec.Struct, frozen=True):
    """One recipient's lot, for events and logs. `kind` is out of core/event_kinds."""

    recipient: Recipient
    reply: RemoteReply
    tier: str = ""


class Aftermath(msgspec.Struct, frozen=True):
    entries: tuple[Entry, ...]
    sent: tuple[Told, ...]
    deferred: tuple[Told, ...]
    failed: tuple[Told, ...]
    notified: bool
    success: str = ""
    """Which success a notification tells of (delivered, relayed); empty: nobody asked."""


class Scene(msgspec.Struct, frozen=True):
    """What is the same for all attempts of a process: names, the topic to return to, the time.

    `delivers`: what succeeds is in its mailbox; else it was passed on.
    """

    topics: Topics
    hostname: str
    return_topic: str
    now_ms: int
    delivers: bool = False


def aftermath(
    item: Item,
    attempts: Sequence[Attempt],
    plan: RetryPlan,
    header: bytes,
    scene: Scene,
    traceparent: bytes | None,
    key: bytes | None,
    return_path: str | None = None,
) -> Aftermath:
    """Sort the attempts and return the records that must be durable before the input is finished.

    `header` is the start of the message, for notifications; it may be empty when nothing can fail and nobody wants
    to be told of a success. `return_path` is where they go when the message left with another reverse-path.
    """
    envelope = item.envelope
    sent = [attempt for attempt in attempts if attempt.reply.code < 400]
    later = [attempt for attempt in attempts if 400 <= attempt.reply.code < 500]
    failed = [attempt for attempt in attempts if attempt.reply.code >= 500]
    entries: list[Entry] = []
    tier = ""
    if later:
        match next_attempt(plan, envelope, scene.now_ms):
            case TryAgain(tier=tier):
                entries.append(_retry_entry(item, later, scene, tier, traceparent, key))
            case GiveUp(age_s=age):
                failed += [_expired(attempt, age) for attempt in later]
                later = []
    told = envelope if return_path is None else msgspec.structs.replace(envelope, reverse_path=return_path)
    notification = _notification(told, failed, header, scene, traceparent) if failed else None
    if notification is not None:
        entries.append(notification)
    action = Action.DELIVERED if scene.delivers else Action.RELAYED
    success = _success(told, action, sent, header, scene, traceparent) if sent else None
    if success is not None:
        entries.append(success)
    return Aftermath(
        tuple(entries),
        tuple(Told(attempt.recipient, attempt.reply) for attempt in sent),
        tuple(Told(attempt.recipient, attempt.reply, tier) for attempt in later),
        tuple(Told(attempt.recipient, attempt.reply) for attempt in failed),
        notification is not None,
        action.value if success is not None else "",
    )


def put_aside(
    item: Item, scene: Scene, tier: str, reason: str, traceparent: bytes | None, key: bytes | None
) -> Entry:
    """Return the record that brings an untried copy back after a tier, without counting an attempt."""
    envelope = deferred(
        item.envelope, item.envelope.recipients, scene.return_topic, reason, "", scene.now_ms, attempted=False
    )
    return work_entry(scene.topics.retry(tier), envelope, item.inline, traceparent, key)


def _retry_entry(
    item: Item,
    later: Sequence[Attempt],
    scene: Scene,
    tier: str,
    traceparent: bytes | None,
    key: bytes | None,
) -> Entry:
    reply = later[0].reply
    text = f"{reply.code} {reply.enhanced} {reply.text}".replace("  ", " ")
    recipients = [attempt.recipient for attempt in later]
    envelope = deferred(item.envelope, recipients, scene.return_topic, text, reply.remote, scene.now_ms)
    return work_entry(scene.topics.retry(tier), envelope, item.inline, traceparent, key)


def _expired(attempt: Attempt, age_s: float) -> Attempt:
    """RFC 3463 3.5 X.4.7: delivery time expired; the last reply stays in the text."""
    last = attempt.reply
    text = f"given up after {age_s / 3600:.1f} hours; last: {last.code} {last.text}"
    return Attempt(attempt.recipient, msgspec.structs.replace(last, code=550, enhanced="4.4.7", text=text))


def _notification(
    envelope: Envelope, failed: Sequence[Attempt], header: bytes, scene: Scene, traceparent: bytes | None
) -> Entry | None:
    fates = [_fate(attempt) for attempt in failed]
    notification = failure_notification(envelope, fates, header, scene.hostname, scene.now_ms)
    if notification is None:
        return None
    if not may_notify(envelope):
        topic = scene.topics.quarantine
        return stopped_notification(topic, notification.envelope, notification.message, traceparent)
    return work_entry(scene.topics.accepted, notification.envelope, notification.message, traceparent)


def _success(
    envelope: Envelope,
    action: Action,
    sent: Sequence[Attempt],
    header: bytes,
    scene: Scene,
    traceparent: bytes | None,
) -> Entry | None:
    """RFC 3461 5.2.2, 5.2.3: of a next hop that reports itself (`dsn`) there is nothing to tell."""
    fates = [_fate(attempt) for attempt in sent if not attempt.reply.dsn]
    notification = success_notification(envelope, action, fates, header, scene.hostname, scene.now_ms)
    if notification is None:
        return None
    return work_entry(scene.topics.accepted, notification.envelope, notification.message, traceparent)


def _fate(attempt: Attempt) -> Fate:
    reply = attempt.reply
    return Fate(attempt.recipient, Reply(reply.code, reply.enhanced, reply.text), reply.remote)
