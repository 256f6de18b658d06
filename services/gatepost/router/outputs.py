"""The records that a routed message becomes: one per mailbox, one per site for at most 500 recipients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gatepost.core.dsn import Action, Fate, failure_notification, may_notify, success_notification
from gatepost.core.dsn_wishes import passed_on
from gatepost.core.envelope import Destination, Envelope, Recipient
from gatepost.core.ids import derive_id
from gatepost.core.ports.log import Entry
from gatepost.core.records import work_entry
from gatepost.core.reply import Reply
from gatepost.core.stopped import stopped_notification
from gatepost.core.topics import Topics
from gatepost.router.copies import Copy, Problem

MAX_RELAY_RECIPIENTS: Final = 500  # one message for at most 500 recipients behind one site
MAX_DELIVERED_TO: Final = 320


class Wishes:
    """What the sender wants to be told of each copy of a message, by the recipient that it comes from."""

    def __init__(self, envelope: Envelope, copies: Sequence[Copy]) -> None:
        self._recipients = {
            recipient.address: recipient for recipient in envelope.recipients if recipient.notify or recipient.orcpt
        }
        self._copies = Counter(copy.original for copy in copies) if self._recipients else Counter()

    def on(self, copy: Copy, recipient: Recipient) -> Recipient:
        """The recipient of a copy with the wishes for it."""
        named = self._recipients.get(copy.original)
        return recipient if named is None else passed_on(named, recipient, alone=self._copies[copy.original] == 1)

    def expanded(self) -> list[Recipient]:
        """Recipients that stand for several copies."""
        return [recipient for address, recipient in self._recipients.items() if self._copies[address] > 1]


def mailbox_envelope(envelope: Envelope, copy: Copy, wishes: Wishes) -> Envelope:
    """The envelope of a copy for one mailbox."""
    destination = copy.goes.destination
    own_id = derive_id(envelope.id, destination.mailbox, "store")
    return msgspec.structs.replace(
        envelope,
        id=own_id,
        parent=envelope.id,
        recipients=(wishes.on(copy, Recipient(str(copy.goes.address), own_id, copy.original)),),
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
    wishes: Wishes,
) -> list[Entry]:
    """One record per site and 500 recipients; a forwarded copy gets a record and a Delivered-To of its own."""
    entries = []
    for site, copies in sites.items():
        plain = [copy for copy in copies if not copy.forwarded]
        groups = [plain[n : n + MAX_RELAY_RECIPIENTS] for n in range(0, len(plain), MAX_RELAY_RECIPIENTS)]
        groups += [[copy] for copy in copies if copy.forwarded]
        for group in groups:
            own = _relay_envelope(envelope, site, group, wishes)
            entries.append(work_entry(topics.relay, own, inline, traceparent, site.encode("utf-8")))
    return entries


def _relay_envelope(envelope: Envelope, site: str, group: Sequence[Copy], wishes: Wishes) -> Envelope:
    recipients = tuple(
        wishes.on(
            copy,
            Recipient(
                str(copy.goes.address), derive_id(envelope.id, copy.goes.address.key, "relay"), copy.original
            ),
        )
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
    named = {recipient.address: recipient for recipient in envelope.recipients}
    failures = [
        Fate(
            _with_wishes(
                named.get(problem.original),
                Recipient(
                    problem.address, derive_id(envelope.id, problem.address.lower(), "route"), problem.original
                ),
            ),
            Reply(550, problem.goes.enhanced, problem.goes.text),
        )
        for problem in problems
    ]
    notification = failure_notification(envelope, failures, header, hostname, now_ms)
    if notification is None:
        return None
    if not may_notify(envelope):
        return stopped_notification(topics.quarantine, notification.envelope, notification.message, traceparent)
    return work_entry(topics.accepted, notification.envelope, notification.message, traceparent)


def expansion_entry(
    topics: Topics,
    envelope: Envelope,
    wishes: Wishes,
    header: bytes,
    hostname: str,
    now_ms: int,
    traceparent: bytes | None,
) -> Entry | None:
    """The DSN that tells of recipients with several mailboxes behind them, if wanted (RFC 3461 5.2.7.3)."""
    fates = [Fate(recipient, Reply(250, "2.0.0", "expanded")) for recipient in wishes.expanded()]
    notification = success_notification(envelope, Action.EXPANDED, fates, header, hostname, now_ms)
    if notification is None:
        return None
    return work_entry(topics.accepted, notification.envelope, notification.message, traceparent)


def _with_wishes(named: Recipient | None, copy: Recipient) -> Recipient:
    return copy if named is None else passed_on(named, copy, alone=True)
