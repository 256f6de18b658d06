"""helo.checks and senders.unresolvableDomain: decision tables over what was found."""

from __future__ import annotations

import pytest

from gatepost.core.checks import helo, sender_domain
from gatepost.core.checks.helo import HeloPolicy, HeloTest, Probe
from gatepost.core.checks.sender_domain import SenderDomainPolicy
from gatepost.core.client_facts import HeloFacts, Outcome, SenderFacts
from gatepost.core.manifest.actions import Action, OnError

CLIENT = "192.0.2.1"
OWN = frozenset({"mx.example.test", "[192.0.2.25]"})
FOUND, ABSENT, FAILED = Outcome.FOUND, Outcome.ABSENT, Outcome.FAILED

# probe, greeting, what the DNS has, addresses behind it, all known? -> does it fail the test
TABLE = [
    (Probe.SYNTAX, "mail.example.org", FOUND, (), True, False),
    (Probe.SYNTAX, "mail.example.org.", FOUND, (), True, False),
    (Probe.SYNTAX, "[192.0.2.1]", Outcome.NOT_ASKED, (), True, False),
    (Probe.SYNTAX, "[IPv6:2001:db8::1]", Outcome.NOT_ASKED, (), True, False),
    (Probe.SYNTAX, "localhost", Outcome.NOT_ASKED, (), True, True),
    (Probe.SYNTAX, "my_pc.example.org", Outcome.NOT_ASKED, (), True, True),
    (Probe.SYNTAX, "192.0.2.1", Outcome.NOT_ASKED, (), True, True),
    (Probe.SYNTAX, "[no.address]", Outcome.NOT_ASKED, (), True, True),
    (Probe.OWN_NAME, "MX.example.test", FOUND, (), True, True),
    (Probe.OWN_NAME, "[192.0.2.25]", Outcome.NOT_ASKED, (), True, True),
    (Probe.OWN_NAME, "mx.other.example", FOUND, (), True, False),
    (Probe.LITERAL, "[192.0.2.1]", Outcome.NOT_ASKED, (), True, False),
    (Probe.LITERAL, "[192.0.2.9]", Outcome.NOT_ASKED, (), True, True),
    (Probe.LITERAL, "192.0.2.9", Outcome.NOT_ASKED, (), True, True),
    (Probe.LITERAL, "mail.example.org", FOUND, (), True, False),
    (Probe.RESOLVES, "mail.example.org", FOUND, (), True, False),
    (Probe.RESOLVES, "mail.example.org", ABSENT, (), True, True),
    (Probe.RESOLVES, "[192.0.2.9]", Outcome.NOT_ASKED, (), True, False),
    (Probe.MATCHES_CLIENT, "mail.example.org", FOUND, ("192.0.2.9", CLIENT), True, False),
    (Probe.MATCHES_CLIENT, "mail.example.org", FOUND, ("192.0.2.9",), True, True),
    (Probe.MATCHES_CLIENT, "mail.example.org", ABSENT, (), True, True),
    (Probe.MATCHES_CLIENT, "mail.example.org", FOUND, ("192.0.2.9",), False, False),
    (Probe.MATCHES_CLIENT, "[192.0.2.1]", Outcome.NOT_ASKED, (), True, False),
]


@pytest.mark.requirement("S2-17")
@pytest.mark.parametrize(("probe", "name", "resolves", "hosts", "complete", "fails"), TABLE)
def test_tests_of_a_greeting(
    probe: Probe, name: str, resolves: Outcome, hosts: tuple[str, ...], complete: bool, fails: bool
) -> None:
    """Fails without a test of greetings that no real server would send."""
    facts = HeloFacts(name, resolves, hosts, complete)
    verdicts = helo.evaluate(HeloPolicy((HeloTest(probe, Action.REJECT),)), facts, CLIENT, OWN)
    assert [verdict.answer.check for verdict in verdicts] == ([helo.CHECKS[probe]] if fails else [])


@pytest.mark.requirement("S3-8")
@pytest.mark.requirement("S3-10")
def test_a_test_without_an_action_is_only_noted() -> None:
    """Log first, refuse below it. Fails without a default that refuses nobody."""
    facts = HeloFacts("mail.example.org", Outcome.FOUND, ("192.0.2.9",))
    (noted,) = helo.evaluate(HeloPolicy((HeloTest(Probe.MATCHES_CLIENT),)), facts, CLIENT, OWN)
    assert noted.action is Action.ACCEPT
    assert noted.facts == {"helo": "mail.example.org", "client": CLIENT, "hosts": "192.0.2.9"}
    assert HeloPolicy().checks == ()


@pytest.mark.parametrize(
    ("probe", "on_error", "action", "code"),
    [
        (Probe.RESOLVES, OnError.TEMPFAIL, Action.REJECT, 451),
        (Probe.MATCHES_CLIENT, OnError.TEMPFAIL, Action.REJECT, 451),
        (Probe.RESOLVES, OnError.TEMPFAIL, Action.TAG, None),
        (Probe.RESOLVES, OnError.IGNORE, Action.REJECT, None),
        (Probe.RESOLVES, OnError.ACCEPT, Action.REJECT, None),
    ],
)
def test_when_the_dns_is_away(probe: Probe, on_error: OnError, action: Action, code: int | None) -> None:
    facts = HeloFacts("mail.example.org", FAILED, (), complete=False)
    verdicts = helo.evaluate(HeloPolicy((HeloTest(probe, action),), on_error), facts, CLIENT, OWN)
    assert [verdict.answer.code for verdict in verdicts] == ([] if code is None else [code])


def test_nothing_is_said_before_a_greeting() -> None:
    policy = HeloPolicy(tuple(HeloTest(probe, Action.REJECT) for probe in Probe))
    assert helo.evaluate(policy, HeloFacts(), CLIENT, OWN) == ()


SENDERS = [
    (None, ABSENT, False, None),
    (Action.REJECT, FOUND, False, None),
    (Action.REJECT, ABSENT, False, 550),
    (Action.DEFER, ABSENT, False, 450),
    (Action.REJECT, FOUND, True, 550),
    (Action.REJECT, FAILED, False, 451),
    (Action.TAG, FAILED, False, None),
]


@pytest.mark.parametrize(("action", "resolves", "null_mx", "code"), SENDERS)
def test_senders_domain(action: Action | None, resolves: Outcome, null_mx: bool, code: int | None) -> None:
    verdict = sender_domain.evaluate(SenderDomainPolicy(action), SenderFacts("far.example", resolves, null_mx))
    assert (None if verdict is None else verdict.answer.code) == code


def test_the_null_sender_has_no_domain() -> None:
    assert sender_domain.evaluate(SenderDomainPolicy(Action.REJECT), SenderFacts()) is None
