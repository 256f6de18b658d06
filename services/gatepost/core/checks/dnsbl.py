"""Check `dnsbl`: what lists in the DNS say of a client's address, its HELO name or its sender's domain (RFC 5782).

Each list has a weight; the weights of those that list the subject are added, lists of the good have negative ones,
and from the threshold on the verdict is the strictest action of the lists that spoke against it. A list that does
not answer, or that answers with what is no listing, never counts as one:
 1  an answer outside of 127.0.0.0/8 is a parked or hijacked zone (RFC 5782 2.1)
 2  127.255.255.0/24 are operators' error codes (a public resolver, too many queries, a wrong zone)
 3  127.0.0.1 must not be listed (RFC 5782 5), and lists use it, 127.0.0.255 and 127.0.1.255 for "query refused"
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final

import msgspec

from gatepost.core.checks.verdict import GRAVITY, Verdict
from gatepost.core.client_facts import Listing, Outcome
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.reply import Reply

CHECK: Final = "dnsbl"

DEFAULT_TEXT: Final = "$subject is listed by $zone"
LISTED: Final = Reply(550, "5.7.1", DEFAULT_TEXT, CHECK)
LISTED_YET: Final = Reply(450, "4.7.1", DEFAULT_TEXT, CHECK)
LIST_AWAY: Final = Reply(451, "4.7.1", "a list of senders does not answer, please try again later", CHECK)

_LOOPBACK: Final = ipaddress.ip_network("127.0.0.0/8")
_OPERATOR_ERRORS: Final = ipaddress.ip_network("127.255.255.0/24")
_BIT_ERROR: Final = frozenset({"127.0.0.1", "127.0.0.255", "127.0.1.255"})
_OCTET = re.compile(r"(\*)|&([0-9]{1,3})|\[([0-9]{1,3})\.\.([0-9]{1,3})\]|([0-9]{1,3})")


class Subject(Enum):
    """What is looked up in a list."""

    CLIENT_ADDRESS = "ClientAddress"
    HELO_NAME = "HeloName"
    SENDER_DOMAIN = "SenderDomain"


class DnsblList(msgspec.Struct, frozen=True, omit_defaults=True):
    """One list. `codes` empty: every answer that is no error. `text` may name $subject, $zone and $code."""

    zone: str
    codes: tuple[str, ...] = ()
    subject: Subject = Subject.CLIENT_ADDRESS
    weight: int = 1
    action: Action = Action.REJECT
    text: str = ""
    on_error: OnError = OnError.IGNORE


class DnsblPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """`deadline` in seconds for all lists together. `watch`: our own addresses, looked up every `watch_every` s."""

    lists: tuple[DnsblList, ...] = ()
    threshold: int = 1
    deadline: float = 3.0
    watch: tuple[str, ...] = ()
    watch_every: float = 3600.0


class CodeError(ValueError):
    """A return code is written wrongly; the message says how."""


class Codes:
    """Return codes as they are written: "127.0.0.2", "127.0.0.2-127.0.0.11", and octets as *, [2..11] or &12.

    &12 matches an octet that has one of these bits (4 or 8).
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Raises CodeError."""
        self._ranges: list[tuple[int, int]] = []
        self._patterns: list[tuple[frozenset[int], ...]] = []
        for text in texts:
            if "-" in text:
                self._ranges.append(_range(text))
            else:
                self._patterns.append(_pattern(text))

    def match(self, answer: str) -> bool:
        """Whether an A record is one of these. An error code of the operator never is."""
        if is_error(answer):
            return False
        if not self._ranges and not self._patterns:
            return True
        address = ipaddress.IPv4Address(answer)
        number, octets = int(address), address.packed
        return any(low <= number <= high for low, high in self._ranges) or any(
            all(octet in allowed for octet, allowed in zip(octets, pattern, strict=True))
            for pattern in self._patterns
        )


def is_error(answer: str) -> bool:
    """Whether an A record of a list is no listing at all: rules 1 to 3."""
    try:
        address = ipaddress.IPv4Address(answer)
    except ValueError:
        return True
    return address not in _LOOPBACK or address in _OPERATOR_ERRORS or answer in _BIT_ERROR


def query_name(subject: str, zone: str) -> str:
    """The name to ask for: an address backwards (RFC 5782 2.1 octets, 2.4 nibbles), a domain as it is (2.3)."""
    try:
        address = ipaddress.ip_address(subject)
    except ValueError:
        return f"{subject}.{zone}"
    labels = address.reverse_pointer.split(".")[:-2]
    return f"{'.'.join(labels)}.{zone}"


class DnsblTable:
    """A policy's lists, ready to judge; `by_subject` are their places in the policy."""

    def __init__(self, policy: DnsblPolicy) -> None:
        self.policy = policy
        self.codes = tuple(Codes(one.codes) for one in policy.lists)
        self.by_subject = {
            subject: tuple(place for place, one in enumerate(policy.lists) if one.subject is subject)
            for subject in Subject
        }


def evaluate(table: DnsblTable, listings: Sequence[Listing]) -> tuple[Verdict, ...]:
    """At most one verdict from the sum of the weights, and one for a list that must answer and did not."""
    policy = table.policy
    score = 0
    against: list[tuple[DnsblList, Listing, str]] = []
    facts: dict[str, str] = {}
    away: DnsblList | None = None
    for listing in listings:
        one, codes = policy.lists[listing.place], table.codes[listing.place]
        code = next((code for code in listing.codes if codes.match(code)), None)
        if code is not None:
            score += one.weight
            facts[one.zone] = code
            if one.weight > 0:
                against.append((one, listing, code))
        elif failed(listing):
            facts[one.zone] = ",".join(listing.codes) or listing.outcome.value
            if one.on_error is OnError.TEMPFAIL and away is None:
                away = one
    verdicts = []
    if against and score >= policy.threshold:
        verdicts.append(_verdict(against, score, facts))
    elif away is not None:
        verdicts.append(Verdict(CHECK, Action.DEFER, LIST_AWAY, facts, score, f"{away.zone} does not answer"))
    return tuple(verdicts)


def vouched(table: DnsblTable, listings: Sequence[Listing]) -> bool:
    """Whether a list of the good has the client."""
    return any(
        table.policy.lists[listing.place].weight < 0 and any(map(table.codes[listing.place].match, listing.codes))
        for listing in listings
    )


def failed(listing: Listing) -> bool:
    """Whether a list gave no usable answer: none in time, or only error codes."""
    if listing.outcome is Outcome.FOUND:
        return bool(listing.codes) and all(map(is_error, listing.codes))
    return listing.outcome is Outcome.FAILED


def _verdict(against: list[tuple[DnsblList, Listing, str]], score: int, facts: dict[str, str]) -> Verdict:
    one, listing, code = min(against, key=lambda found: GRAVITY.index(found[0].action))
    base = LISTED_YET if one.action is Action.DEFER else LISTED
    text = one.text or DEFAULT_TEXT
    for name, value in (("$subject", listing.subject), ("$zone", one.zone), ("$code", code)):
        text = text.replace(name, value)
    zones = ", ".join(found[0].zone for found in against)
    reply = msgspec.structs.replace(base, text=text)
    return Verdict(CHECK, one.action, reply, {"subject": listing.subject, **facts}, score, zones)


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    first, last = _address(low, text), _address(high, text)
    if first > last:
        raise CodeError(f"{text!r}: the range must go upwards")
    return first, last


def _address(part: str, whole: str) -> int:
    try:
        return int(ipaddress.IPv4Address(part.strip()))
    except ValueError:
        raise CodeError(f"{whole!r} is no return code: 127.0.0.2, 127.0.0.2-127.0.0.11, 127.0.[1..3].&8") from None


def _pattern(text: str) -> tuple[frozenset[int], ...]:
    octets = []
    rest = text
    for number in range(4):
        found = _OCTET.match(rest)
        if found is None:
            break
        octets.append(_octet(found, text))
        rest = rest[found.end() :]
        if number < 3:
            if not rest.startswith("."):
                break
            rest = rest[1:]
    if len(octets) != 4 or rest:
        _address("", text)
    return tuple(octets)


def _octet(found: re.Match[str], text: str) -> frozenset[int]:
    star, mask, low, high, exact = found.groups()
    numbers = [int(one) for one in (mask, low, high, exact) if one]
    if any(number > 255 for number in numbers) or mask == "0" or (low and int(low) > int(high)):
        raise CodeError(f"{text!r}: an octet is from 0 to 255, a mask has bits, a range goes upwards")
    if star:
        return frozenset(range(256))
    if mask:
        return frozenset(number for number in range(256) if number & int(mask))
    if low:
        return frozenset(range(int(low), int(high) + 1))
    return frozenset({int(exact)})
