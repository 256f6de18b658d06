"""Which events belong to an incident, and the manifest that says what an export holds and whether it is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from gatepost.core.networks import NetworkSet
from gatepost.core.ports.events import Event
from gatepost.core.topics import EVENTS_RETENTION_MS

PREFIX: int = 10  # an id's characters that hold its time: derived ids have their parent's (core/ids.py)


class Query(msgspec.Struct, frozen=True):
    """What is asked for; empty fields ask for nothing, and all that are given must fit. Times in ms since 1970."""

    since_ms: int
    until_ms: int
    id: str = ""
    client: str = ""
    sender: str = ""
    recipient: str = ""


class Part(msgspec.Struct, frozen=True):
    """One file of an export."""

    name: str
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What stands beside the evidence, so that a stranger can judge it.

    `complete` is False when something may be missing; `notes` say what, and why.
    """

    made: str
    host: str
    version: str
    installation: str
    query: dict[str, str]
    events: int
    messages: int
    sessions: int
    complete: bool
    notes: tuple[str, ...]
    files: tuple[Part, ...]


class Matcher:
    """Tells the events that the query itself describes from the others."""

    def __init__(self, query: Query) -> None:
        """Raises NetworkError when the client is no address or network."""
        self._query = query
        self._networks = NetworkSet((query.client,)) if query.client else None
        self._sender = f"<{query.sender.strip('<>').lower()}>"
        self._recipient = query.recipient.strip("<>").lower()

    def fits(self, event: Event) -> bool:
        query, facts = self._query, event.facts
        if query.id:
            return query.id in (event.id, event.parent) or query.id in (facts.get("first_id"), facts.get("last_id"))
        if not query.since_ms <= event.at_ms <= query.until_ms:
            return False
        return self._fits_client(facts) and self._fits_sender(facts) and self._fits_recipient(event)

    def _fits_client(self, facts: dict[str, str]) -> bool:
        if self._networks is None:
            return True
        addresses = [facts.get("client", ""), *facts.get("clients", "").split(",")]
        return any(address and address in self._networks for address in addresses)

    def _fits_sender(self, facts: dict[str, str]) -> bool:
        return not self._query.sender or facts.get("from", "").lower() == self._sender

    def _fits_recipient(self, event: Event) -> bool:
        if not self._recipient:
            return True
        named = event.facts.get("to", "").lower()
        return event.recipient.lower() == self._recipient or f"<{self._recipient}>" in named.split(",")


def doubts(query: Query, first_ms: int | None, now_ms: int) -> tuple[str, ...]:
    """Why events that were asked for may be missing. `first_ms`: of the oldest record that was there."""
    kept_ms = now_ms - EVENTS_RETENTION_MS
    notes = []
    if query.since_ms < kept_ms:
        days = EVENTS_RETENTION_MS // 86_400_000
        notes.append(f"events are kept for {days} days: what is older than that is gone, and was asked for")
    elif first_ms is None:
        notes.append("there are no events at all since the beginning of the time that was asked for")
    if query.until_ms > now_ms:
        notes.append("the time that was asked for is not over yet")
    return tuple(notes)


def part(name: str, data: bytes) -> Part:
    return Part(name, len(data), hashlib.sha256(data).hexdigest())


def counts(events: Sequence[Event]) -> tuple[int, int]:
    """How many messages were accepted, and how many sessions had something refused."""
    accepted = {event.id for event in events if event.kind == "accepted"}
    refused = {event.id for event in events if event.kind == "refused"}
    return len(accepted), len(refused)
