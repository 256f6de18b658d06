"""relay_right and sender_match as tables; the sessions' own tests are in tests/edge."""

from __future__ import annotations

import pytest

from gatepost.core.address import Address, parse_address
from gatepost.core.configuration import ClientRule, Configuration, DeliveryPlan, DomainConfig, ListenerPolicy
from gatepost.core.relay_right import RelayFacts, Right, relay_right
from gatepost.core.tables import Tables

DOMAIN = DomainConfig("example.test", "x", 1, "Any", DeliveryPlan("Mailbox"), subdomains=True)


def right(
    recipient: str,
    *,
    sender: str | None = "bob@example.test",
    client: str = "192.0.2.7",
    authenticated: bool = False,
    auth_enabled: bool = True,
    rules: tuple[ClientRule, ...] = (ClientRule(("192.0.2.0/24",), ("Local",)),),
) -> Right | None:
    policy = ListenerPolicy("mx", relay_clients=rules, auth_enabled=auth_enabled)
    tables = Tables(Configuration(1, (DOMAIN,), (policy,)))
    facts = RelayFacts(
        client=client,
        authenticated=authenticated,
        sender=None if sender is None else parse_address(sender),
        recipient=parse_address(recipient) if "@" in recipient else Address(recipient, ""),
        own_hosts=frozenset({"mx.example.net", "[192.0.2.1]"}),
    )
    return relay_right(facts, tables, tables.listeners["mx"])


FAR = "friend@far.example"


def test_nobody_without_a_reason() -> None:
    assert right(FAR, rules=()) is None
    assert right(FAR, client="198.51.100.1") is None
    assert right(FAR, sender="x@elsewhere.example") is None
    assert right(FAR, sender=None, client="198.51.100.1") is None


@pytest.mark.parametrize(
    ("client", "domains", "recipient", "expected"),
    [
        ("192.0.2.7", ("Local",), FAR, Right.CLIENT_RULE),
        ("192.0.2.7", ("other.example",), FAR, Right.CLIENT_RULE),
        ("::ffff:192.0.2.7", ("Local",), FAR, Right.CLIENT_RULE),
        ("192.0.3.7", ("Local",), FAR, None),
        ("2001:db8::7", ("Local",), FAR, None),
        ("192.0.2.7", ("Local",), "anyone@mx.example.net", None),
        ("192.0.2.7", ("Local",), "friend%far.example@[198.51.100.9]", None),
    ],
)
def test_the_null_sender(client: str, domains: tuple[str, ...], recipient: str, expected: Right | None) -> None:
    """Notifications of servers in a listed network go out; nobody else's do."""
    rules = (ClientRule(("192.0.2.0/24",), domains),)
    assert right(recipient, sender=None, client=client, rules=rules) is expected
    assert right(recipient, sender=None, client=client, rules=()) is None


def test_client_rules() -> None:
    assert right(FAR) is Right.CLIENT_RULE
    assert right(FAR, sender="bob@dept.example.test") is Right.CLIENT_RULE, "subdomains are served"
    assert right(FAR, client="::ffff:192.0.2.7") is Right.CLIENT_RULE
    listed = (ClientRule(("2001:db8::/32",), ("other.example",)), ClientRule(("192.0.2.0/24",), ("third.example",)))
    assert right(FAR, rules=listed, client="2001:db8::5", sender="x@other.example") is Right.CLIENT_RULE
    assert right(FAR, rules=listed, client="192.0.2.7", sender="x@other.example") is None, "rules do not mix"
    assert right(FAR, rules=listed, sender="bob@example.test") is None, "Local is not listed here"


def test_authenticated() -> None:
    assert right(FAR, rules=(), authenticated=True) is Right.AUTHENTICATED
    assert right(FAR, rules=(), authenticated=True, sender=None) is Right.AUTHENTICATED
    assert right(FAR, rules=(), authenticated=True, auth_enabled=False) is None, "the policy has changed"


@pytest.mark.parametrize("authenticated", [False, True])
@pytest.mark.parametrize(
    "recipient",
    [
        "anyone@mx.example.net",
        "anyone@[192.0.2.1]",
        "far.example!friend@[198.51.100.9]",
        "friend%far.example@[198.51.100.9]",
        '"friend@far.example"@[198.51.100.9]',
        "postmaster",
    ],
)
def test_denied_to_everybody(recipient: str, authenticated: bool) -> None:
    assert right(recipient, authenticated=authenticated) is None


def test_routing_characters_at_a_foreign_domain_are_its_own_matter() -> None:
    assert right("a%b@far.example", authenticated=True) is Right.AUTHENTICATED
    assert right("friend@[198.51.100.9]", authenticated=True) is Right.AUTHENTICATED
