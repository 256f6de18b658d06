"""The records that a routed message becomes: one per mailbox, one per site for at most 500 recipients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gatepost.core.dsn import Failure, failure_notification, may_notify
from gatepost.core.envelope import Destination, Envelope, Recipient
from gatepost.core.ids import derive_id
from gatepost.core.ports.log import Entry
from gatepost.core.records import work_entry
from gatepost.core.reply import Reply
from gatepost.core.topics import Topics
from gatepost.router.expansion import Copy, Problem

MAX_RELAY_RECIPIENTS: Final = 500  # one message for at most 500 recipients behind one site
MAX_DELIVERED_TO: Final = 320


def mailbox_envelope(envelope: Envelope, copy: Copy) -> Envelope:
    """The envelope of a copy for one mailbox."""
    destination = copy.goes.destination
    own_id = derive_id(envelope.id, destination.mailbox, "store")
    return msgspec.structs.replace(
        envelope,
        id=own_id,
        parent=envelope.id,
        recipients=(Recipient(str(copy.goes.address), own_id, copy.original),),
        destination=destination,
    )


def mailbox_entry(topics: Topics, own: Envelope, inline: bytes, traceparent: bytes | None) -> Entry:
    """The record for a mailbox, keyed by it, so that one mailbox's mail stays in order."""
    assert own.destination is not None
    key = own.destination.mailbox.encode("utf-8", "surrogateescape")
    return work_entry(topics.mailbox(own.destination.store), own, inline, traceparent, key)


def relay_entries(
    topics: Topics,
    envelope: Envelope,
    inline: bytes,
    traceparent: bytes | None,
    sites: Mapping[str, Sequence[Copy]],
) -> list[Entry]:
    """One record per site and 500 recipients; a forwarded copy gets a record and a Delivered-To of its own."""
    entries = []
    for site, copies in sites.items():
        plain = [copy for copy in copies if not copy.forwarded]
        groups = [plain[n : n + MAX_RELAY_RECIPIENTS] for n in range(0, len(plain), MAX_RELAY_RECIPIENTS)]
        groups += [[copy] for copy in copies if copy.forwarded]
        for group in groups:
            own = _relay_envelope(envelope, site, group)
            entries.append(work_entry(topics.relay, own, inline, traceparent, site.encode("utf-8")))
    return entries


def _relay_envelope(envelope: Envelope, site: str, group: Sequence[Copy]) -> Envelope:
    recipients = tuple(
        Recipient(str(copy.goes.address), derive_id(envelope.id, copy.goes.address.key, "relay"), copy.original)
        for copy in group
    )
    first = group[0]
    chosen = first.goes.destination
    prepend = envelope.prepend
    if first.forwarded and first.original.isascii():
        # The trace of a forwarding, by which a second pass through here is recognised as a loop.
        prepend = f"Delivered-To: {first.original[:MAX_DELIVERED_TO]}\r\n{prepend}"
    return msgspec.structs.replace(
        envelope,
        parent=envelope.id,
        recipients=recipients,
        prepend=prepend,
        destination=Destination(domain=chosen.domain, hosts=chosen.hosts, site=site),
    )


def notification_entry(
    topics: Topics,
    envelope: Envelope,
    problems: Sequence[Problem],
    header: bytes,
    hostname: str,
    now_ms: int,
    traceparent: bytes | None,
) -> Entry | None:
    """The DSN for what could not be routed: into `accepted`, or `quarantine` for an unverified return path."""
    failures = [
        Failure(
            Recipient(problem.address, derive_id(envelope.id, problem.address.lower(), "route"), problem.original),
            Reply(550, problem.goes.enhanced, problem.goes.text),
        )
        for problem in problems
    ]
    notification = failure_notification(envelope, failures, header, hostname, now_ms)
    if notification is None:
        return None
    topic = topics.accepted if may_notify(envelope) else topics.quarantine
    return work_entry(topic, notification.envelope, notification.message, traceparent)
