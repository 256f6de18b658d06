"""Abuse seen in the edge's own decisions: counts over a sliding window, and an alarm where one is too many.

Observation only: nothing here refuses anything. Time comes in as an argument. Memory is bounded: of each kind
MOST_SUBJECTS are remembered, and the ones that were quiet for longest are forgotten first, so that whoever goes on
stays in view.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from enum import Enum
from functools import lru_cache
from typing import Final

import msgspec

MOST_SUBJECTS: Final = 5000  # of each kind, some 1 KB each at the most
STEPS: Final = 10  # of a window: an old count falls out after a tenth of it at the latest
MOST_SHOWN: Final = 5  # clients and targets that an alarm names
# An address alone would let a neighbour of the same network begin anew: one customer has a /64 (RFC 6177 2).
IPV4_PREFIX: Final = 24
IPV6_PREFIX: Final = 64


class Kind(Enum):
    """What is watched. The value is the label in metrics, log lines and events."""

    RELAY = "relay-attempts"
    AUTH = "auth-failures"
    UNKNOWN = "unknown-recipients"
    BOMBING = "bombing"
    SENDING = "sending"


MEANING: Final[dict[Kind, str]] = {
    Kind.RELAY: "a network tries to relay through us and is refused",
    Kind.AUTH: "many logins fail, from one network or for one account",
    Kind.UNKNOWN: "a network guesses recipients",
    Kind.BOMBING: "one recipient gets very many messages",
    Kind.SENDING: "a client of ours, or a login, suddenly sends to very many: a worm, or a stolen password",
}


class Limits(msgspec.Struct, frozen=True):
    """From how many within `window_s` seconds on there is an alarm, by kind; a kind with 0 is not watched."""

    window_s: float
    most: dict[Kind, int]


class Sighting(msgspec.Struct, frozen=True):
    """One thing that was seen. `subject` is what is counted: a network, an account, an address.

    `target` is what it was aimed at (a recipient), `weight` how much it counts.
    """

    kind: Kind
    subject: str
    at_ms: int
    id: str
    client: str
    helo: str = ""
    login: str = ""
    target: str = ""
    weight: int = 1


class Alarm(msgspec.Struct, frozen=True):
    """What a person needs to find the way that it came: who, from where, how much, since when, by which ids."""

    kind: Kind
    subject: str
    count: int
    limit: int
    window_s: float
    first_ms: int
    last_ms: int
    first_id: str
    last_id: str
    helo: str
    login: str
    clients: tuple[str, ...]
    targets: tuple[str, ...]


class _Step(msgspec.Struct):
    number: int
    first_ms: int
    first_id: str
    count: int = 0


class _Subject:
    """The steps of one subject's window, oldest first, and the last few names that were seen with it."""

    __slots__ = ("alarmed_ms", "clients", "count", "steps", "targets")

    def __init__(self) -> None:
        self.steps: deque[_Step] = deque()
        self.count = 0
        self.alarmed_ms: int | None = None
        self.clients: dict[str, None] = {}
        self.targets: dict[str, None] = {}

    def add(self, sighting: Sighting, number: int) -> None:
        while self.steps and self.steps[0].number <= number - STEPS:
            self.count -= self.steps.popleft().count
        if not self.steps or self.steps[-1].number < number:
            self.steps.append(_Step(number, sighting.at_ms, sighting.id))
        self.steps[-1].count += sighting.weight
        self.count += sighting.weight
        _show(self.clients, sighting.client)
        _show(self.targets, sighting.target)


class AbuseWatch:
    """Counts what it is shown; one per process."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._step_ms = max(1, int(limits.window_s * 1000 / STEPS))
        self._subjects: dict[Kind, OrderedDict[str, _Subject]] = {kind: OrderedDict() for kind in Kind}

    def watches(self, kind: Kind) -> bool:
        return self._limits.most.get(kind, 0) > 0

    def see(self, sighting: Sighting) -> Alarm | None:
        """Count; return an alarm when it is too many, and again only after a whole window in which it went on."""
        limit = self._limits.most.get(sighting.kind, 0)
        if limit <= 0:
            return None
        subject = self._subject(sighting)
        subject.add(sighting, sighting.at_ms // self._step_ms)
        if subject.count < limit or not self._due(subject, sighting.at_ms):
            return None
        subject.alarmed_ms = sighting.at_ms
        first = subject.steps[0]
        return Alarm(
            sighting.kind,
            sighting.subject,
            subject.count,
            limit,
            self._limits.window_s,
            first.first_ms,
            sighting.at_ms,
            first.first_id,
            sighting.id,
            sighting.helo,
            sighting.login,
            tuple(subject.clients),
            tuple(subject.targets),
        )

    def remembered(self, kind: Kind) -> int:
        """How many subjects of a kind are in memory."""
        return len(self._subjects[kind])

    def _due(self, subject: _Subject, at_ms: int) -> bool:
        return subject.alarmed_ms is None or at_ms - subject.alarmed_ms >= self._limits.window_s * 1000

    def _subject(self, sighting: Sighting) -> _Subject:
        known = self._subjects[sighting.kind]
        subject = known.get(sighting.subject)
        if subject is None:
            subject = known[sighting.subject] = _Subject()
            if len(known) > MOST_SUBJECTS:
                known.popitem(last=False)
        else:
            known.move_to_end(sighting.subject)
        return subject


@lru_cache(maxsize=4096)
def network_of(client: str) -> str:
    """The network that a client's address is counted under, as "192.0.2.0/24" or "2001:db8::/64"."""
    address = ipaddress.ip_address(client.split("%", 1)[0])
    prefix = IPV4_PREFIX if address.version == 4 else IPV6_PREFIX
    return str(ipaddress.ip_network(f"{address}/{prefix}", strict=False))


def _show(names: dict[str, None], name: str) -> None:
    """Keep the last few names, each once."""
    if not name:
        return
    names.pop(name, None)
    names[name] = None
    if len(names) > MOST_SHOWN:
        del names[next(iter(names))]
