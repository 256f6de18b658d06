"""connection, helo, dnsbl and senders of a RelayPolicy: what they become, what is refused and warned of."""

from __future__ import annotations

import pytest

from gatepost.core.checks.dnsbl import DnsblList, Subject
from gatepost.core.checks.helo import HeloPolicy, HeloTest, Probe
from gatepost.core.checks.reverse_dns import Require, ReverseDns
from gatepost.core.compile import Compiled, Surroundings, compile_manifests
from gatepost.core.configuration import ListenerPolicy, decode_configuration
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.manifest.documents import read_objects
from gatepost.core.manifest.settings import Role
from gatepost.core.tables import ListenerTable


def compiled(spec: str, role: Role = Role.MX) -> Compiled:
    text = (
        "apiVersion: gatepost.dev/v1alpha1\nkind: RelayPolicy\nmetadata: {name: p}\n"
        f"spec: {{target: {{type: Listeners, listeners: [mx]}}, {spec}}}\n"
    )
    objects = read_objects({"test.yaml": text})
    return compile_manifests(objects.domains, objects.policies, Surroundings(listeners={"mx": role}))


def policy(spec: str) -> ListenerPolicy:
    """As a pod reads it."""
    result = compiled(spec)
    assert result.rejected == ()
    return decode_configuration(result.configuration.encode()).listeners[0]


def test_all_of_connection() -> None:
    found = policy(
        "connection: {allow: [192.0.2.0/24, .partner.example], deny: [203.0.113.10-203.0.113.40], "
        "perHost: {concurrent: 9, ratePerMinute: 60}, "
        "perNetwork: {ipv4Prefix: 20, ipv6Prefix: 56, concurrent: 40}, total: {concurrent: 99}, bannerDelay: 2s, "
        "recipientsWithoutMessage: 300, reverseDNS: {require: Confirmed, action: Defer, onError: Ignore}}"
    )
    assert found.connection.allow == ("192.0.2.0/24", ".partner.example")
    assert found.connection.deny == ("203.0.113.10-203.0.113.40",)
    assert (found.per_host_concurrent, found.per_host_rate, found.total_concurrent) == (9, 60, 99)
    assert (found.network_ipv4_prefix, found.network_ipv6_prefix, found.per_network_concurrent) == (20, 56, 40)
    assert (found.banner_delay, found.recipients_without_message) == (2.0, 300)
    assert found.reverse_dns == ReverseDns(Require.CONFIRMED, Action.DEFER, OnError.IGNORE)


@pytest.mark.requirement("S0-31")
def test_all_of_helo_dnsbl_and_senders() -> None:
    """Fails without lists that can be replaced: nothing but the policy names one."""
    found = policy(
        "helo: {checks: [{test: MatchesClient}, {test: OwnName, action: Reject}], onError: Tempfail}, "
        "dnsbl: {threshold: 3, deadline: 500ms, watch: {addresses: ['192.0.2.25', '2001:DB8::1'], every: 2h}, "
        "lists: [{zone: Bl.Example, codes: [127.0.0.2-127.0.0.11], weight: 3, action: Tag, text: 'see $zone', "
        "onError: Tempfail}, {zone: wl.example, weight: -2}, {zone: dom.example, subject: SenderDomain}]}, "
        "senders: {unresolvableDomain: Defer, onError: Ignore}"
    )
    assert found.helo == HeloPolicy(
        (HeloTest(Probe.MATCHES_CLIENT), HeloTest(Probe.OWN_NAME, Action.REJECT)), OnError.TEMPFAIL
    )
    assert found.dnsbl.lists == (
        DnsblList(
            "bl.example",
            ("127.0.0.2-127.0.0.11",),
            weight=3,
            action=Action.TAG,
            text="see $zone",
            on_error=OnError.TEMPFAIL,
        ),
        DnsblList("wl.example", weight=-2),
        DnsblList("dom.example", subject=Subject.SENDER_DOMAIN),
    )
    assert (found.dnsbl.threshold, found.dnsbl.deadline) == (3, 0.5)
    assert (found.dnsbl.watch, found.dnsbl.watch_every) == (("192.0.2.25", "2001:db8::1"), 7200.0)
    assert (found.sender_domain.action, found.sender_domain.on_error) == (Action.DEFER, OnError.IGNORE)


@pytest.mark.requirement("S3-14")
def test_one_switch_refuses_by_the_standard_list() -> None:
    """Fails without a list that one word switches on; what is written about the same zone comes first."""
    switched = policy("dnsbl: {standard: true, threshold: 4, lists: [{zone: other.example}]}")
    assert switched.dnsbl.lists == (
        DnsblList("zen.spamhaus.org", ("127.0.0.2-127.0.0.11",), weight=4),
        DnsblList("other.example"),
    )
    (own,) = policy("dnsbl: {standard: true, lists: [{zone: zen.spamhaus.org, action: Tag}]}").dnsbl.lists
    assert own.action is Action.TAG
    assert policy("dnsbl: {standard: false}").dnsbl.lists == ()


def test_an_empty_policy_has_no_checks_and_writes_none() -> None:
    found = policy("connection: {idleTimeout: 5m}, helo: {}, dnsbl: {}, senders: {}")
    assert ListenerTable(found).client_checks is None
    written = compiled("helo: {}, dnsbl: {}").configuration.encode()
    assert b"dnsbl" not in written
    assert b"helo" not in written


REFUSED = [
    ("connection: {allow: [192.0.2.1/24]}", "spec.connection.allow"),
    ("connection: {deny: ['*.example']}", "spec.connection.deny"),
    ("connection: {bannerDelay: 31s}", "spec.connection.bannerDelay"),
    ("connection: {reverseDNS: {require: PTR, action: Relay}}", "spec.connection.reverseDNS.action"),
    ("helo: {checks: [{test: Syntax, action: Relay}]}", "spec.helo.checks.action"),
    ("dnsbl: {lists: [{zone: a b}]}", "spec.dnsbl.lists[0]"),
    ("dnsbl: {lists: [{zone: bl.example}, {zone: bl.example, codes: [127.0.0.999]}]}", "spec.dnsbl.lists[1]"),
    ("dnsbl: {lists: [{zone: bl.example, weight: 0}]}", "spec.dnsbl.lists[0].weight"),
    ('dnsbl: {lists: [{zone: bl.example, text: "a\\nb"}]}', "spec.dnsbl.lists[0].text"),
    ("dnsbl: {deadline: 1m}", "spec.dnsbl.deadline"),
    ("dnsbl: {deadline: 0s}", "spec.dnsbl.deadline"),
    ("dnsbl: {watch: {addresses: [mx.example]}}", "spec.dnsbl.watch.addresses"),
    ("dnsbl: {watch: {addresses: ['192.0.2.1'], every: 1s}}", "spec.dnsbl.watch.every"),
    ("senders: {unresolvableDomain: Relay}", "spec.senders.unresolvableDomain"),
]


@pytest.mark.parametrize(("spec", "field"), REFUSED)
def test_what_is_refused_is_named(spec: str, field: str) -> None:
    result = compiled(spec)
    assert result.configuration.listeners[0].origin == ""
    ((_, condition),) = result.rejected
    assert condition.reason == "Invalid"
    assert condition.message.startswith(f"{field}: "), condition.message


@pytest.mark.parametrize(
    ("spec", "role", "warning"),
    [
        (
            "dnsbl: {threshold: 5, lists: [{zone: bl.example, weight: 2}, {zone: b.example, weight: 2}]}",
            Role.MX,
            "4",
        ),
        ("dnsbl: {watch: {addresses: ['192.0.2.1']}}", Role.MX, "dnsbl.watch"),
        (
            "helo: {checks: [{test: Syntax}]}, relay: {authenticated: {enabled: false}}",
            Role.SUBMISSION,
            "HELO tests",
        ),
    ],
)
def test_warnings(spec: str, role: Role, warning: str) -> None:
    assert any(warning in text for texts in compiled(spec, role).warnings.values() for text in texts)
