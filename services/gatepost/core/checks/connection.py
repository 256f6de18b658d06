"""Check `connection`: the administrator's own list of clients, by address and by host name.

Two views, and both always count (S2-14): first the address, then the forward-confirmed names; where both have a
rule, the name's decides, since it was looked at last. Within a view the most specific rule decides (the narrowest
range, the longest name) and of two equal ones `deny`. Nobody chooses a confirmed name but who owns both its reverse
zone and its forward zone (RFC 8601 3).
"""

from __future__ import annotations

import bisect
import heapq
import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from gatepost.core.checks.verdict import Verdict
from gatepost.core.client_facts import ClientFacts, Outcome
from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.manifest.actions import Action
from gatepost.core.networks import NetworkError, parse_network
from gatepost.core.reply import Reply

CHECK: Final = "connection"

CLIENT_DENIED: Final = Reply(550, "5.7.1", "mail from your host is not taken here", CHECK)
CLIENT_NAME_UNKNOWN: Final = Reply(
    450, "4.7.1", "your host's name cannot be looked up, please try again later", CHECK
)


class ConnectionRules(msgspec.Struct, frozen=True, omit_defaults=True):
    """Addresses, CIDRs, ranges, host names and suffixes (".partner.example")."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class RuleError(ValueError):
    """A rule is neither an address nor a name; the message says why."""


def parse_rule(text: str) -> tuple[int, int, int] | str:
    """Return (IP version, first, last), or a canonical name, with a dot in front for a suffix. Raises RuleError."""
    stripped = text.strip()
    if _looks_like_address(stripped):
        try:
            return parse_network(stripped)
        except NetworkError as error:
            raise RuleError(str(error)) from None
    try:
        name = canonical_domain(stripped.removeprefix("."))
    except DomainError as error:
        raise RuleError(f"{text!r} is no IP address, network, range or host name: {error}") from None
    return f".{name}" if stripped.startswith(".") else name


def _looks_like_address(text: str) -> bool:
    """No top-level domain is a number (RFC 3696 2), and no name has a colon or a slash."""
    last = text.removesuffix(".").rpartition(".")[2]
    return ":" in text or "/" in text or last.replace("-", "").isdecimal()


class ConnectionTable:
    """The rules, for look-ups in O(log n)."""

    def __init__(self, rules: ConnectionRules) -> None:
        spans: dict[int, list[tuple[int, int, bool]]] = {4: [], 6: []}
        self._names: dict[str, bool] = {}
        # `deny` last, so that it wins over an equal `allow`.
        for allow, texts in ((True, rules.allow), (False, rules.deny)):
            for text in texts:
                rule = parse_rule(text)
                if isinstance(rule, str):
                    self._names[rule] = allow
                else:
                    spans[rule[0]].append((rule[1], rule[2], allow))
        self._pieces = {version: _flattened(found) for version, found in spans.items()}
        self.has_names = bool(self._names)
        self.allows_names = any(self._names.values())

    def by_address(self, address: str) -> bool | None:
        """True: allowed; False: denied; None: no rule."""
        parsed = ipaddress.ip_address(address)
        starts, pieces = self._pieces[parsed.version]
        place = bisect.bisect_right(starts, int(parsed)) - 1
        return pieces[place] if place >= 0 else None

    def by_names(self, names: Iterable[str]) -> bool | None:
        """The same for confirmed names; of several names' rules the most specific."""
        found = [rule for name in names if (rule := self._by_name(name)) is not None]
        return max(found, key=lambda rule: (rule[0], not rule[1]))[1] if found else None

    def _by_name(self, name: str) -> tuple[int, bool] | None:
        """(how specific, allowed) of the longest rule for a name. A suffix means the name itself as well."""
        if name in self._names:
            return 1000, self._names[name]
        rest = name
        while rest:
            if f".{rest}" in self._names:
                return rest.count(".") + 1, self._names[f".{rest}"]
            rest = rest.partition(".")[2]
        return None


def evaluate(table: ConnectionTable, facts: ClientFacts) -> bool | Verdict | None:
    """True: the client is on the list of the allowed; a Verdict: refused; None: no rule."""
    address, names = table.by_address(facts.address), table.by_names(facts.confirmed)
    decided = address if names is None else names
    if decided is not False:
        return decided
    told = {"client": facts.address, "names": ",".join(facts.confirmed)}
    unknown = Outcome.FAILED in (facts.reverse, facts.forward)
    if names is None and unknown and table.allows_names:
        # The name that could have allowed it is not known at the moment.
        return Verdict(CHECK, Action.DEFER, CLIENT_NAME_UNKNOWN, told, reason="host name not known")
    by = "address" if names is None else "host name"
    return Verdict(CHECK, Action.REJECT, CLIENT_DENIED, told, reason=f"denied by {by}")


def _flattened(spans: Sequence[tuple[int, int, bool]]) -> tuple[list[int], list[bool | None]]:
    """Overlapping ranges as pieces that do not overlap: (their beginnings, the rule of each)."""
    edges = sorted({edge for low, high, _ in spans for edge in (low, high + 1)})
    # The narrowest first, and deny (False) before allow.
    waiting = sorted(spans, key=lambda span: span[0], reverse=True)
    active: list[tuple[int, bool, int]] = []
    pieces: list[bool | None] = []
    for edge in edges:
        while waiting and waiting[-1][0] == edge:
            low, high, allow = waiting.pop()
            heapq.heappush(active, (high - low, allow, high))
        while active and active[0][2] < edge:
            heapq.heappop(active)
        pieces.append(active[0][1] if active else None)
    return edges, pieces
