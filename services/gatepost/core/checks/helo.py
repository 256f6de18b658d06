"""Checks `helo-*`: is the name that a client greets with (RFC 5321 4.1.1.1, 4.1.4) one of a real server?

RFC 5321 4.1.4 forbids refusing mail only because the name does not match the client's address, and wrong names
"happen very frequently": a test without an action is only noted. A mail domain is as good a name as a host's, so MX
counts beside A and AAAA. Own clients are never tested.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection
from enum import Enum
from typing import Final

import msgspec

from gatepost.core.checks.verdict import Verdict
from gatepost.core.client_facts import HeloFacts, Outcome
from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.reply import Reply

_UNKNOWN_TEXT: Final = "the name you greeted with cannot be looked up, please try again later"


class Probe(Enum):
    """SYNTAX: no name with a dot and no address literal. OWN_NAME: ours. LITERAL: an address that is not its own.

    RESOLVES: has neither A, AAAA nor MX. MATCHES_CLIENT: none of these leads to the client's address.
    """

    SYNTAX = "Syntax"
    OWN_NAME = "OwnName"
    LITERAL = "Literal"
    RESOLVES = "Resolves"
    MATCHES_CLIENT = "MatchesClient"


CHECKS: Final = {
    Probe.SYNTAX: "helo-syntax",
    Probe.OWN_NAME: "helo-own-name",
    Probe.LITERAL: "helo-literal",
    Probe.RESOLVES: "helo-resolves",
    Probe.MATCHES_CLIENT: "helo-matches-client",
}
HELO_NO_NAME: Final = Reply(
    550, "5.7.1", "the name you greeted with is no host name (RFC 5321 2.3.5)", "helo-syntax"
)
HELO_IS_OURS: Final = Reply(550, "5.7.1", "you greeted with our own name", "helo-own-name")
HELO_NOT_YOURS: Final = Reply(550, "5.7.1", "the address you greeted with is not yours", "helo-literal")
HELO_NOT_FOUND: Final = Reply(550, "5.7.1", "the name you greeted with does not exist in the DNS", "helo-resolves")
HELO_NO_MATCH: Final = Reply(
    550, "5.7.1", "the name you greeted with does not lead to your address", "helo-matches-client"
)
HELO_RESOLVES_UNKNOWN: Final = Reply(451, "4.4.3", _UNKNOWN_TEXT, "helo-resolves")
HELO_MATCH_UNKNOWN: Final = Reply(451, "4.4.3", _UNKNOWN_TEXT, "helo-matches-client")
_REPLIES: Final = {
    Probe.SYNTAX: HELO_NO_NAME,
    Probe.OWN_NAME: HELO_IS_OURS,
    Probe.LITERAL: HELO_NOT_YOURS,
    Probe.RESOLVES: HELO_NOT_FOUND,
    Probe.MATCHES_CLIENT: HELO_NO_MATCH,
}
_UNKNOWN: Final = {Probe.RESOLVES: HELO_RESOLVES_UNKNOWN, Probe.MATCHES_CLIENT: HELO_MATCH_UNKNOWN}


class HeloTest(msgspec.Struct, frozen=True, omit_defaults=True):
    test: Probe
    action: Action = Action.ACCEPT


class HeloPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    checks: tuple[HeloTest, ...] = ()
    on_error: OnError = OnError.IGNORE
    require: bool = True

    @property
    def needs_dns(self) -> bool:
        return any(one.test in _UNKNOWN for one in self.checks)


def literal_address(name: str) -> str | None:
    """The address of a literal (RFC 5321 4.1.3) or of a bare address; None for a name. "" for a broken literal."""
    text = name
    if name.startswith("[") and name.endswith("]"):
        text = name[1:-1]
        text = text[5:] if text[:5].lower() == "ipv6:" else text
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return "" if name.startswith("[") else None


def evaluate(config: HeloPolicy, facts: HeloFacts, client: str, own_hosts: Collection[str]) -> tuple[Verdict, ...]:
    """Every test that the name fails, in the policy's order; none before a greeting."""
    if not facts.name:
        return ()
    found = []
    for one in config.checks:
        outcome = _TESTS[one.test](facts, client, own_hosts)
        told = {"helo": facts.name, "client": client, "hosts": ",".join(facts.hosts[:MOST_TOLD])}
        if outcome is Outcome.ABSENT:
            reply = _REPLIES[one.test]
            if one.action is Action.DEFER:
                reply = msgspec.structs.replace(reply, code=450, enhanced="4.7.1")
            found.append(Verdict(CHECKS[one.test], one.action, reply, told, reason=facts.name))
        elif outcome is Outcome.FAILED and config.on_error is OnError.TEMPFAIL and one.action not in _MILD:
            found.append(Verdict(CHECKS[one.test], Action.DEFER, _UNKNOWN[one.test], told, reason=facts.name))
    return tuple(found)


MOST_TOLD: Final = 8
_MILD: Final = (Action.TAG, Action.ACCEPT)


def _passes(passes: bool) -> Outcome:
    return Outcome.FOUND if passes else Outcome.ABSENT


def _syntax(facts: HeloFacts, client: str, own: Collection[str]) -> Outcome:
    address = literal_address(facts.name)
    if address is not None:
        return _passes(bool(address) and facts.name.startswith("["))  # a bare address is neither
    return _passes(helo_domain(facts.name) is not None)


def _own_name(facts: HeloFacts, client: str, own: Collection[str]) -> Outcome:
    return _passes((helo_domain(facts.name) or facts.name) not in own)


def _literal(facts: HeloFacts, client: str, own: Collection[str]) -> Outcome:
    address = literal_address(facts.name)
    return _passes(address is None or address == str(ipaddress.ip_address(client)))


def _resolves(facts: HeloFacts, client: str, own: Collection[str]) -> Outcome:
    return Outcome.FOUND if literal_address(facts.name) is not None else facts.resolves


def _matches(facts: HeloFacts, client: str, own: Collection[str]) -> Outcome:
    address = literal_address(facts.name)
    if address is not None:
        return _passes(address == str(ipaddress.ip_address(client)))
    if facts.resolves is not Outcome.FOUND:
        return facts.resolves
    if client in facts.hosts:
        return Outcome.FOUND
    return Outcome.ABSENT if facts.complete else Outcome.FAILED


_TESTS: Final[dict[Probe, Callable[[HeloFacts, str, Collection[str]], Outcome]]] = {
    Probe.SYNTAX: _syntax,
    Probe.OWN_NAME: _own_name,
    Probe.LITERAL: _literal,
    Probe.RESOLVES: _resolves,
    Probe.MATCHES_CLIENT: _matches,
}


def helo_domain(name: str) -> str | None:
    """The greeting as a canonical domain with a dot in it; None for anything else."""
    try:
        domain = canonical_domain(name)
    except DomainError:
        return None
    return domain if "." in domain else None
