"""connection.allow and connection.deny: addresses and names, and which rule decides."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.checks import reverse_dns
from gatepost.core.checks.connection import (
    CLIENT_DENIED,
    CLIENT_NAME_UNKNOWN,
    ConnectionRules,
    ConnectionTable,
    RuleError,
    evaluate,
    parse_rule,
)
from gatepost.core.checks.reverse_dns import Require, ReverseDns
from gatepost.core.checks.verdict import Verdict
from gatepost.core.client_facts import ClientFacts, Outcome
from gatepost.core.manifest.actions import Action, OnError

ALLOWED, DENIED, NONE = True, "denied", None
# allow, deny, address, confirmed names -> what is decided
TABLE = [
    ((), (), "192.0.2.1", (), NONE),
    ((), ("192.0.2.1",), "192.0.2.1", (), DENIED),
    ((), ("192.0.2.1",), "192.0.2.2", (), NONE),
    ((), ("192.0.2.0/24",), "192.0.2.255", (), DENIED),
    ((), ("203.0.113.10-203.0.113.40",), "203.0.113.10", (), DENIED),
    ((), ("203.0.113.10-203.0.113.40",), "203.0.113.40", (), DENIED),
    ((), ("203.0.113.10-203.0.113.40",), "203.0.113.41", (), NONE),
    ((), ("2001:db8::/32",), "2001:db8:1::5", (), DENIED),
    ((), ("2001:db8::1-2001:db8::9",), "2001:db8::a", (), NONE),
    ((), ("0.0.0.0/0",), "2001:db8::1", (), NONE),
    # the most specific range decides, and of two equal ones deny
    (("192.0.2.7",), ("192.0.2.0/24",), "192.0.2.7", (), ALLOWED),
    (("192.0.2.0/24",), ("192.0.2.7",), "192.0.2.7", (), DENIED),
    (("192.0.2.7",), ("192.0.2.7",), "192.0.2.7", (), DENIED),
    (("10.0.0.1",), ("0.0.0.0/0", "::/0"), "10.0.0.1", (), ALLOWED),
    (("10.0.0.1",), ("0.0.0.0/0", "::/0"), "2001:db8::1", (), DENIED),
    # names: the longest decides, a suffix means the name itself as well
    ((), (".spam.example",), "192.0.2.1", ("mx.spam.example",), DENIED),
    ((), (".spam.example",), "192.0.2.1", ("spam.example",), DENIED),
    ((), (".spam.example",), "192.0.2.1", ("notspam.example",), NONE),
    ((), ("spam.example",), "192.0.2.1", ("mx.spam.example",), NONE),
    (("mx.spam.example",), (".spam.example",), "192.0.2.1", ("mx.spam.example",), ALLOWED),
    ((".good.spam.example",), (".spam.example",), "192.0.2.1", ("a.good.spam.example",), ALLOWED),
    ((".example",), ("mx.example",), "192.0.2.1", ("mx.example", "other.example"), DENIED),
    # both views count, and the name's decides (S2-14)
    (("192.0.2.0/24",), (".spam.example",), "192.0.2.1", ("mx.spam.example",), DENIED),
    ((".partner.example",), ("192.0.2.0/24",), "192.0.2.1", ("mx.partner.example",), ALLOWED),
    ((".partner.example",), ("192.0.2.0/24",), "192.0.2.1", (), DENIED),
]


@pytest.mark.requirement("S0-29")
@pytest.mark.requirement("S0-28")
@pytest.mark.requirement("S2-14")
@pytest.mark.requirement("S2-15")
@pytest.mark.parametrize(("allow", "deny", "address", "names", "expected"), TABLE)
def test_which_rule_decides(
    allow: tuple[str, ...], deny: tuple[str, ...], address: str, names: tuple[str, ...], expected: object
) -> None:
    """Fails without names' rules beside addresses' ones, or without IPv6 in every rule."""
    table = ConnectionTable(ConnectionRules(allow, deny))
    decided = evaluate(table, ClientFacts(address, names=names, confirmed=names))
    if expected is DENIED:
        assert isinstance(decided, Verdict)
        assert (decided.action, decided.reply) == (Action.REJECT, CLIENT_DENIED)
    else:
        assert decided is expected


def test_a_name_that_is_not_confirmed_allows_and_denies_nobody() -> None:
    table = ConnectionTable(ConnectionRules((".partner.example",), (".spam.example",)))
    facts = ClientFacts("192.0.2.1", Outcome.FOUND, Outcome.ABSENT, names=("mx.spam.example", "a.partner.example"))
    assert evaluate(table, facts) is None


@pytest.mark.parametrize(("reverse", "forward"), [("FAILED", "NOT_ASKED"), ("FOUND", "FAILED")])
def test_who_could_be_allowed_by_name_is_not_refused_for_good_while_the_dns_is_away(
    reverse: str, forward: str
) -> None:
    facts = ClientFacts("192.0.2.1", Outcome[reverse], Outcome[forward])
    verdict = evaluate(ConnectionTable(ConnectionRules((".partner.example",), ("0.0.0.0/0",))), facts)
    assert isinstance(verdict, Verdict)
    assert (verdict.action, verdict.reply) == (Action.DEFER, CLIENT_NAME_UNKNOWN)
    verdict = evaluate(ConnectionTable(ConnectionRules((), ("0.0.0.0/0", ".spam.example"))), facts)
    assert isinstance(verdict, Verdict)
    assert verdict.action is Action.REJECT


@pytest.mark.parametrize(
    "text",
    ["", "192.0.2.256", "192.0.2.1/24", "192.0.2.9-192.0.2.1", "::1-192.0.2.1", "a b", "*.example", ".", "-"],
)
def test_rules_that_are_none(text: str) -> None:
    with pytest.raises(RuleError):
        parse_rule(text)


@given(st.text(max_size=40))
def test_any_text_is_a_rule_or_an_error(text: str) -> None:
    try:
        rule = parse_rule(text)
    except RuleError:
        return
    assert isinstance(rule, str) or rule[1] <= rule[2]


SPANS = st.tuples(st.integers(0, 255), st.integers(0, 255)).map(sorted)


@given(st.lists(st.tuples(SPANS, st.booleans()), max_size=8), st.integers(0, 255))
def test_the_table_agrees_with_looking_at_each_rule(rules: list[tuple[list[int], bool]], last: int) -> None:
    """By the definition: of the ranges that contain an address the narrowest, of equal ones deny."""
    texts = {
        allow: tuple(f"192.0.2.{low}-192.0.2.{high}" for (low, high), other in rules if other is allow)
        for allow in (True, False)
    }
    table = ConnectionTable(ConnectionRules(texts[True], texts[False]))
    matching = [(high - low, allow) for (low, high), allow in rules if low <= last <= high]
    assert table.by_address(f"192.0.2.{last}") is (min(matching)[1] if matching else None)


@given(st.ip_addresses())
def test_nobody_is_on_an_empty_list(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert ConnectionTable(ConnectionRules()).by_address(str(address)) is None


# require, action, facts (reverse, forward, confirmed) -> code of the reply, or None
REVERSE = [
    (Require.NONE, Action.REJECT, (Outcome.ABSENT, Outcome.NOT_ASKED, ()), None),
    (Require.PTR, Action.REJECT, (Outcome.ABSENT, Outcome.NOT_ASKED, ()), 550),
    (Require.PTR, Action.DEFER, (Outcome.ABSENT, Outcome.NOT_ASKED, ()), 450),
    (Require.PTR, Action.REJECT, (Outcome.FOUND, Outcome.ABSENT, ()), None),
    (Require.CONFIRMED, Action.REJECT, (Outcome.FOUND, Outcome.ABSENT, ()), 550),
    (Require.CONFIRMED, Action.REJECT, (Outcome.FOUND, Outcome.FOUND, ("a.example",)), None),
    (Require.CONFIRMED, Action.REJECT, (Outcome.FOUND, Outcome.FAILED, ()), 451),
    (Require.CONFIRMED, Action.REJECT, (Outcome.FAILED, Outcome.NOT_ASKED, ()), 451),
    (Require.CONFIRMED, Action.TAG, (Outcome.FAILED, Outcome.NOT_ASKED, ()), None),
]


@pytest.mark.requirement("S2-11")
@pytest.mark.parametrize(("require", "action", "found", "code"), REVERSE)
def test_reverse_names(
    require: Require, action: Action, found: tuple[Outcome, Outcome, tuple[str, ...]], code: int | None
) -> None:
    """Fails without the forward confirmation of a reverse name, or without telling failure from absence."""
    reverse, forward, confirmed = found
    facts = ClientFacts("192.0.2.1", reverse, forward, ("a.example",), confirmed)
    verdict = reverse_dns.evaluate(ReverseDns(require, action), facts)
    assert (None if verdict is None else verdict.answer.code) == code


@pytest.mark.parametrize("on_error", [OnError.ACCEPT, OnError.IGNORE])
def test_a_dns_failure_can_be_passed_over(on_error: OnError) -> None:
    config = ReverseDns(Require.PTR, Action.REJECT, on_error)
    assert reverse_dns.evaluate(config, ClientFacts("192.0.2.1", Outcome.FAILED)) is None
