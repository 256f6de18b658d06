"""relay.* and recipients.source of manifests: what is compiled, refused, and warned about."""

from __future__ import annotations

import pytest

from gatepost.core.address import parse_address
from gatepost.core.call_ahead import Answer, CallAheadPlan, meaning
from gatepost.core.checks import recipient as recipient_check
from gatepost.core.compile import Compiled, Surroundings, compile_manifests
from gatepost.core.compile.surroundings import mechanisms_of
from gatepost.core.configuration import ListenerPolicy
from gatepost.core.manifest.documents import read_objects
from gatepost.core.manifest.relay_policy import Mechanism, RequireFor
from gatepost.core.manifest.settings import AttributeMap, DirectorySettings, LdapSettings, LdifSettings, Role
from gatepost.core.pop_before_smtp import PopLogin, address_key, may_relay
from gatepost.core.recipients import Found, Kind
from gatepost.core.relay_right import RelayFacts, Right, relay_right
from gatepost.core.routing import GoesNowhere, route
from gatepost.core.tables import Tables

ALL = "[PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256]"
PASSWORDS = (Mechanism.PLAIN, Mechanism.LOGIN)
AROUND = Surroundings(
    listeners={"mx": Role.MX, "submission": Role.SUBMISSION, "inside": Role.INTERNAL},
    directories=("corp", "file"),
    stores=("local",),
    mechanisms={"file": (*PASSWORDS, Mechanism.CRAM_MD5, Mechanism.SCRAM_SHA_256)},
    any_namespace=True,
)
DOMAIN = """
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: a}
spec: {domain: example.test, recipients: %s}
"""
POLICY = """
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: p}
spec: {target: {type: Listeners, listeners: [%s]}, relay: {%s}}
"""


def compiled(*documents: str) -> Compiled:
    objects = read_objects({"test.yaml": "\n---\n".join(documents)})
    return compile_manifests(objects.domains, objects.policies, AROUND)


def policy_document(name: str, relay: str) -> str:
    """A submission listener asks for a login; there are two directories."""
    named = "authenticated: {directoryRef: corp}, " if name == "submission" else ""
    return POLICY % (name, named + relay)


def listener(relay: str, name: str = "inside") -> tuple[ListenerPolicy, str]:
    """The listener's policy and all warnings, in one text."""
    result = compiled(policy_document(name, relay))
    assert result.rejected == ()
    (policy,) = (one for one in result.configuration.listeners if one.listener == name)
    return policy, " | ".join(text for texts in result.warnings.values() for text in texts)


def refusal(relay: str, name: str = "inside") -> tuple[str, str]:
    ((_, condition),) = compiled(policy_document(name, relay)).rejected
    return condition.reason, condition.message


# -- mechanisms


def test_a_mechanism_that_the_directory_cannot_check_is_not_offered() -> None:
    """MechanismNotOffered for the author that names it: a warning, and a refusal where none is left."""
    auth = "authenticated: {enabled: true, directoryRef: %s, mechanisms: %s}"
    policy, warnings = listener(auth % ("corp", ALL))
    assert policy.auth_mechanisms == PASSWORDS
    assert "MechanismNotOffered: CRAM-MD5, SCRAM-SHA-256: directory 'corp' cannot check it" in warnings
    policy, warnings = listener(auth % ("file", ALL))
    assert policy.auth_mechanisms == (*PASSWORDS, Mechanism.CRAM_MD5, Mechanism.SCRAM_SHA_256)
    assert "MechanismNotOffered" not in warnings
    assert "CRAM-MD5 needs passwords that the directory stores in clear" in warnings
    policy, warnings = listener(auth % ("file", "[SCRAM-SHA-256, PLAIN]"))
    assert (policy.auth_mechanisms, warnings) == ((Mechanism.SCRAM_SHA_256, Mechanism.PLAIN), "")
    reason, message = refusal(auth % ("corp", "[SCRAM-SHA-256]"))
    assert reason == "MechanismNotOffered"
    assert "spec.relay.authenticated.mechanisms" in message


def test_what_each_kind_of_directory_can_check() -> None:
    def ldap(**attributes: str) -> DirectorySettings:
        return DirectorySettings(ldap=LdapSettings(("ldap://x",), "dc=x", attributes=AttributeMap(**attributes)))

    assert mechanisms_of(ldap()) == PASSWORDS
    assert mechanisms_of(ldap(scram_verifier="authPassword")) == (*PASSWORDS, Mechanism.SCRAM_SHA_256)
    assert set(mechanisms_of(ldap(clear_password="secret"))) == set(Mechanism)
    assert set(mechanisms_of(DirectorySettings(ldif=LdifSettings("x")))) == set(Mechanism)


def test_passwords_on_the_line_are_warned_about() -> None:
    _, warnings = listener(
        "authenticated: {enabled: true, directoryRef: corp, mechanisms: [PLAIN], requireTLS: false}"
    )
    assert "PLAIN and LOGIN with requireTLS: false" in warnings


# -- networks


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "0.0.0.0-255.255.255.255"])
def test_the_whole_world_is_no_network_of_clients(network: str) -> None:
    reason, message = refusal(f'clients: [{{networks: ["{network}"]}}]')
    assert reason == "NotAllowed"
    assert "open relay" in message


@pytest.mark.parametrize(
    ("network", "warned"),
    [
        ("10.0.0.0/8", ""),
        ("192.168.1.7", ""),
        ("192.168.1.3-192.168.1.200", ""),
        ("2001:db8::/32", ""),
        ("0.0.0.0/1", "wider than /8"),
        ("2000::/8", "wider than /16"),
        ("100.64.0.0/24", "providers share among customers"),
    ],
)
def test_networks_that_are_hardly_ones_own(network: str, warned: str) -> None:
    _, warnings = listener(f'clients: [{{networks: ["{network}"]}}]')
    assert warned in warnings
    assert bool(warnings) is bool(warned)


@pytest.mark.requirement("S3-6")
def test_relaying_by_network_where_addresses_cannot_be_trusted() -> None:
    """Fails without inner hosts' right to relay being tied to listeners whose clients are known by their addresses:
    on a public one, where SNAT makes the world look inside, it is refused, or warned about where insisted on."""
    clients = 'clients: [{networks: ["10.0.0.0/8"]}]'
    reason, message = refusal(clients, "mx")
    assert reason == "NotAllowed"
    assert "a load balancer can make every client look inside" in message
    _, warnings = listener(f"{clients}, allowOnPublicListeners: true", "mx")
    assert "behind SNAT this is an open relay" in warnings
    assert listener(clients, "submission")[1] == ""


# -- POP before SMTP


@pytest.mark.requirement("S0-17")
@pytest.mark.requirement("S2-7")
def test_pop_before_smtp_is_off_and_warned_about() -> None:
    """Fails without it being off until somebody enables it, and without the warning of the NAT hole."""
    assert ListenerPolicy("x").pop_before_smtp == 0
    assert listener("popBeforeSmtp: {}", "submission") == (
        listener("clients: []", "submission")[0],
        "",
    )
    policy, warnings = listener("popBeforeSmtp: {enabled: true}", "submission")
    assert policy.pop_before_smtp == 600.0
    assert "everybody behind the same address (a NAT, a provider's proxy) may relay" in warnings
    assert listener("popBeforeSmtp: {enabled: true, window: 1h}", "submission")[0].pop_before_smtp == 3600.0
    assert refusal("popBeforeSmtp: {enabled: true, window: 61m}", "submission")[0] == "Invalid"
    assert refusal("popBeforeSmtp: {enabled: true}", "mx")[0] == "NotAllowed"
    assert listener("popBeforeSmtp: {enabled: true}, allowOnPublicListeners: true", "mx")[0].pop_before_smtp


@pytest.mark.parametrize(
    ("login", "allowed"),
    [
        (None, False),
        (PopLogin(1000), True),
        (PopLogin(401), True),
        (PopLogin(400), False),  # 600 s ago, to the ms
        (PopLogin(600_001), False),  # a clock that is wrong
    ],
)
def test_the_window_of_a_login(login: PopLogin | None, allowed: bool) -> None:
    assert may_relay(login, 600.0, 600_400 if login != PopLogin(600_001) else 600_000) is allowed


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        (" 2001:DB8:0::1 ", "2001:db8::1"),
        ("192.0.2.0/24", ""),
        ("host.example", ""),
        ("", ""),
        ("0.0.0.0", ""),
        ("fe80::1%eth0", ""),
        ("224.0.0.1", ""),
    ],
)
def test_keys_of_addresses(text: str, key: str) -> None:
    if key:
        assert address_key(text) == key
    else:
        with pytest.raises(ValueError):
            address_key(text)


# -- secondary MX, and who may relay at all


def tables(relay: str = "", name: str = "mx") -> Tables:
    static = "{source: {type: Static, addresses: [bob]}}"
    result = compiled(DOMAIN % static, policy_document(name, relay))
    assert result.rejected == ()
    return Tables(result.configuration)


def right(
    of: Tables,
    recipient: str,
    sender: str = "x@far.example",
    *,
    name: str = "mx",
    client: str = "203.0.113.9",
    **facts: bool,
) -> Right | None:
    known = RelayFacts(
        client=client,
        authenticated=False,
        sender=parse_address(sender) if sender else None,
        recipient=parse_address(recipient),
        own_hosts=frozenset({"mx.example.test", "[192.0.2.1]"}),
        **facts,
    )
    return relay_right(known, of, of.listeners[name])


def test_secondary_for_warns() -> None:
    policy, warnings = listener("secondaryFor: [Friend.EXAMPLE, friend.example, b.example]", "mx")
    assert policy.secondary_for == ("b.example", "friend.example")
    assert "takes every recipient of these domains unverified" in warnings
    assert "submission listener" in listener("secondaryFor: [friend.example]", "submission")[1]
    assert refusal("secondaryFor: [not a domain]", "mx")[0] == "Invalid"


@pytest.mark.parametrize(
    ("recipient", "allowed"),
    [
        ("carol@friend.example", True),
        ("CAROL@Friend.Example", True),
        ("carol@sub.friend.example", False),
        ("carol@far.example", False),
        ("carol%far.example@friend.example", False),
        ("far.example!carol@friend.example", False),
        ('"carol@far.example"@friend.example', False),
        ("carol@mx.example.test", False),
    ],
)
def test_who_is_relayed_to_as_a_secondary_mx(recipient: str, allowed: bool) -> None:
    """Everybody may send to the friend's domain, and nobody through its primary, which trusts us."""
    assert right(tables("secondaryFor: [friend.example]"), recipient) is (Right.SECONDARY_MX if allowed else None)
    assert right(tables(), recipient) is None


@pytest.mark.parametrize(
    ("window", "popped", "sender", "allowed"),
    [
        (True, True, "bob@example.test", True),
        (True, True, "", True),
        (True, True, "x@far.example", False),
        (True, False, "bob@example.test", False),
        (False, True, "bob@example.test", False),  # the policy has been changed meanwhile
    ],
)
def test_who_may_relay_after_pop(window: bool, popped: bool, sender: str, allowed: bool) -> None:
    of = tables(f"popBeforeSmtp: {{enabled: {str(window).lower()}}}", "submission")
    found = right(of, "friend@elsewhere.example", sender, name="submission", popped=popped)
    assert found is (Right.POP_BEFORE_SMTP if allowed else None)


# -- clients by network and sender domain

LAN = 'clients: [{networks: ["127.0.0.1", "192.168.1.0/24", "198.51.100.3-198.51.100.9"], senderDomains: %s}]'


@pytest.mark.requirement("S0-20")
@pytest.mark.requirement("S1-7")
@pytest.mark.requirement("S2-8")
@pytest.mark.parametrize(
    ("client", "allowed"),
    [
        ("127.0.0.1", True),
        ("192.168.1.0", True),
        ("192.168.1.25", True),
        ("192.168.1.255", True),
        ("198.51.100.3", True),
        ("198.51.100.9", True),
        ("::ffff:192.168.1.25", True),
        ("127.0.0.2", False),
        ("192.168.2.25", False),
        ("10.0.0.1", False),  # private, but not listed: that is no right
        ("198.51.100.2", False),
        ("198.51.100.10", False),
        ("2001:db8::1", False),
        ("::1", False),
    ],
)
def test_clients_are_single_addresses_networks_and_ranges(client: str, allowed: bool) -> None:
    """Fails without localhost, a LAN and a from-to range being what relays, and a private range that nobody listed
    being as foreign as any other."""
    of = tables(LAN % "[Local]", "inside")
    found = right(of, "friend@far.example", "bob@example.test", name="inside", client=client)
    assert found is (Right.CLIENT_RULE if allowed else None)


@pytest.mark.requirement("S0-19")
@pytest.mark.requirement("S0-21")
@pytest.mark.parametrize(
    ("domains", "sender", "inside", "outside"),
    [
        ("[Local]", "bob@example.test", True, False),  # the domain alone, as anybody writes it, is no right
        ("[Local]", "postmaster@example.test", True, False),
        ("[Local]", "x@sister.example", False, False),  # of the same organisation, but not served here
        ("[Local, sister.example]", "x@sister.example", True, False),
        ("[sister.example]", "bob@example.test", False, False),
        ("[Local]", "x@far.example", False, False),
        ("[Local]", "", True, False),
    ],
)
def test_local_is_what_is_served_here(domains: str, sender: str, inside: bool, outside: bool) -> None:
    """Fails without both tests: the sender's domain, where Local means served ones and others are listed, AND the
    client's address, without which posing as postmaster would be enough."""
    of = tables(LAN % domains, "inside")
    for client, allowed in (("192.168.1.25", inside), ("203.0.113.9", outside)):
        found = right(of, "friend@far.example", sender, name="inside", client=client)
        assert found is (Right.CLIENT_RULE if allowed else None), client


@pytest.mark.requirement("S4-7")
def test_a_submission_listener_asks_for_authentication_without_any_policy() -> None:
    """Fails without a submission listener being ready as it is: AUTH is on there and asked of everybody."""
    around = Surroundings(listeners={"submission": Role.SUBMISSION}, directories=("corp",))
    (policy,) = compile_manifests((), (), around).configuration.listeners
    assert (policy.auth_enabled, policy.auth_require_for, policy.auth_directory) == (True, RequireFor.ALL, "corp")
    assert policy.auth_require_tls
    assert policy.auth_mechanisms == PASSWORDS


# -- recipients


@pytest.mark.requirement("S0-52")
def test_unknown_bounce() -> None:
    """Fails without unknown addresses being bounced when a domain asks for that: taken at RCPT, sent back later."""
    result = compiled(DOMAIN % "{source: {type: Static, addresses: [bob]}, unknown: Bounce}")
    assert result.rejected == ()
    ((warning,),) = result.warnings.values()
    assert "backscatter" in warning
    (config,) = result.configuration.domains
    found = Found(Kind.UNKNOWN, parse_address("nobody@example.test"), config)
    assert recipient_check.evaluate(found, 0) is None
    assert route(found, {}) == GoesNowhere("5.1.1", "no such user here", meant=True)


def test_call_ahead() -> None:
    source = "{source: {type: CallAhead, hosts: [%s]%s}}"
    result = compiled(DOMAIN % source % ('"[192.0.2.9]:25"', ""))
    assert result.rejected == ()
    (config,) = result.configuration.domains
    assert config.call_ahead == CallAheadPlan(("[192.0.2.9]:25",), 10.0, 3600.0, 10.0, 86400.0)
    assert (config.delivery.kind, config.delivery.hosts) == ("Relay", ("[192.0.2.9]:25",))
    more = ", timeout: 5s, cache: {positive: 2h, negative: 30s, stale: 48h}"
    (config,) = compiled(DOMAIN % source % ("inner.example", more)).configuration.domains
    assert config.call_ahead == CallAheadPlan(("inner.example",), 5.0, 7200.0, 30.0, 172800.0)


@pytest.mark.parametrize(
    ("hosts", "more", "field"),
    [
        ("192.0.2.9", "", "hosts"),
        ("a.example", ", timeout: 31s", "timeout"),
        ("a.example", ", cache: {negative: 31s}", "cache.negative"),
        ("a.example", ", cache: {positive: 25h}", "cache.positive"),
    ],
)
def test_call_ahead_limits(hosts: str, more: str, field: str) -> None:
    document = DOMAIN % f"{{source: {{type: CallAhead, hosts: [{hosts}]{more}}}}}"
    ((_, condition),) = compiled(document).rejected
    assert f"spec.recipients.source.{field}" in condition.message


@pytest.mark.parametrize("unknown", ["Discard", "DeliverTo, unknownDeliverTo: bob@example.test"])
def test_only_the_next_host_knows_who_is_unknown(unknown: str) -> None:
    """The router could not tell these apart from the others."""
    document = DOMAIN % f"{{source: {{type: CallAhead, hosts: [a.example]}}, unknown: {unknown}}}"
    ((_, condition),) = compiled(document).rejected
    assert "spec.recipients.unknown" in condition.message


@pytest.mark.parametrize(
    ("code", "enhanced", "answer"),
    [
        (250, "2.1.5", Answer.YES),
        (251, "", Answer.YES),
        (550, "5.1.1", Answer.NO),
        (550, "", Answer.NO),
        (553, "5.1.3", Answer.NO),
        (551, "5.1.6", Answer.NO),
        (552, "5.2.2", Answer.FAILED),
        (554, "5.7.1", Answer.FAILED),
        (450, "4.2.1", Answer.FAILED),
        (421, "", Answer.FAILED),
        (354, "", Answer.FAILED),
    ],
)
def test_what_the_next_hosts_reply_means(code: int, enhanced: str, answer: Answer) -> None:
    assert meaning(code, enhanced) is answer
