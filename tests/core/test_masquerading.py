"""Masquerading: which addresses are rewritten, byte for byte; whose settings count; what compile refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.address import parse_address
from gatepost.core.compile import Surroundings, compile_manifests
from gatepost.core.configuration import Configuration, DeliveryPlan, DomainConfig
from gatepost.core.envelope import Destination
from gatepost.core.manifest.documents import read_objects
from gatepost.core.masquerading import (
    MAX_OCTETS,
    MasqueradePlan,
    MasqueradeTable,
    masquerade_header,
    masquerade_path,
)
from gatepost.core.outbound import by_smart_host, outbound_domain
from gatepost.core.routing import GoesTo
from gatepost.core.tables import Tables

AS = "example.jp"
LISTED = MasqueradePlan(AS, ("myhost.example.jp", "old.example"), envelope=True, exposed=("root", "postmaster"))
ENTIRE = MasqueradePlan(AS, ("example.jp",), entire=True, envelope=True, exposed=("root",))


@pytest.mark.requirement("S4-34")
@pytest.mark.requirement("S4-37")
@pytest.mark.parametrize(
    ("path", "plan", "expected"),
    [
        ("a@myhost.example.jp", LISTED, "a@example.jp"),
        ("A.b+c@MyHost.Example.JP", LISTED, "A.b+c@example.jp"),
        ('"a b"@myhost.example.jp', LISTED, '"a b"@example.jp'),
        ("a@other.example.jp", LISTED, "a@other.example.jp"),
        ("a@x.myhost.example.jp", LISTED, "a@x.myhost.example.jp"),
        ("a@far.test", ENTIRE, "a@far.test"),
        ("a@deep.down.example.jp", ENTIRE, "a@example.jp"),
        ("a@notexample.jp", ENTIRE, "a@notexample.jp"),
        ("a@example.jp", ENTIRE, "a@example.jp"),
        ("a@[192.0.2.1]", ENTIRE, "a@[192.0.2.1]"),
        ("Root@myhost.example.jp", LISTED, "Root@myhost.example.jp"),
        ('"root"@myhost.example.jp', LISTED, '"root"@myhost.example.jp'),
        ("", LISTED, ""),
        ("no address", LISTED, "no address"),
        ("a@myhost.example.jp", MasqueradePlan(AS, ("myhost.example.jp",)), "a@myhost.example.jp"),
    ],
)
def test_the_reverse_path(path: str, plan: MasqueradePlan, expected: str) -> None:
    """Fails without host names being replaced in the envelope, where that is asked for and only there."""
    assert masquerade_path(path, plan) == expected
    assert masquerade_path(expected, plan) == expected


FIELDS = [
    (b"From: a@h.example.jp", b"From: a@example.jp"),
    (b"from:a@H.Example.JP", b"from:a@example.jp"),
    (b"From : \t<a@h.example.jp> ", b"From : \t<a@example.jp> "),
    (b'From: "x, a@h.example.jp" <a@h.example.jp>', b'From: "x, a@h.example.jp" <a@example.jp>'),
    (
        b"From: (a@h.example.jp (b@h.example.jp)) a@h.example.jp (\\) c)",
        b"From: (a@h.example.jp (b@h.example.jp)) a@example.jp (\\) c)",
    ),
    (
        b"Reply-To: a@h.example.jp,b@far.test,\r\n\tC <c@h.example.jp>",
        b"Reply-To: a@example.jp,b@far.test,\r\n\tC <c@example.jp>",
    ),
    (
        b"Sender: =?utf-8?Q?a=40h.example.jp?= <a@h.example.jp>",
        b"Sender: =?utf-8?Q?a=40h.example.jp?= <a@example.jp>",
    ),
    (
        b"Resent-From: list: a@h.example.jp, <b@h.example.jp>;",
        b"Resent-From: list: a@example.jp, <b@example.jp>;",
    ),
    (
        b"Resent-Sender: <@h.example.jp,@far.test:a@h.example.jp>",
        b"Resent-Sender: <@h.example.jp,@far.test:a@example.jp>",
    ),
    (b"Resent-Reply-To: a (x) @ (y) h.example.jp (z)", b"Resent-Reply-To: a (x) @ (y) example.jp (z)"),
    (b'From: "a b"."c"@h.example.jp', b'From: "a b"."c"@example.jp'),
    (b"From: \xe5\xb1\xb1\xff <a@h.example.jp>", b"From: \xe5\xb1\xb1\xff <a@example.jp>"),
    (b"From: <\xe5\xb1\xb1@h.example.jp>", b"From: <\xe5\xb1\xb1@example.jp>"),
    (b"From: a@h.example.jp.", b"From: a@example.jp"),
    (b"From: Root <root@h.example.jp>, b@h.example.jp", b"From: Root <root@h.example.jp>, b@example.jp"),
    (b'From: "ro\\ot"@h.example.jp', b'From: "ro\\ot"@h.example.jp'),
    # No field of the sender, or nothing to hide.
    (b"To: a@h.example.jp", b"To: a@h.example.jp"),
    (b"Cc: a@h.example.jp", b"Cc: a@h.example.jp"),
    (b"Message-ID: <a@h.example.jp>", b"Message-ID: <a@h.example.jp>"),
    (b"From: a@EXAMPLE.jp", b"From: a@EXAMPLE.jp"),
    (b"From: a@[192.0.2.1]", b"From: a@[192.0.2.1]"),
    # Broken or doubtful: left as a whole.
    (b'From: "a <a@h.example.jp>', b'From: "a <a@h.example.jp>'),
    (b"From: (a <a@h.example.jp>", b"From: (a <a@h.example.jp>"),
    (b"From: a@h.example.jp <b@far.test>", b"From: a@h.example.jp <b@far.test>"),
    (b"From: A a@h.example.jp", b"From: A a@h.example.jp"),
    (b"From: <a@h.example.jp", b"From: <a@h.example.jp"),
    (b"From: a@h.example.jp> x", b"From: a@h.example.jp> x"),
    (b"From: <<a@h.example.jp>>", b"From: <<a@h.example.jp>>"),
    (b"From: a@b@h.example.jp", b"From: a@b@h.example.jp"),
    (b"From: a@h . example.jp", b"From: a@h . example.jp"),
    (b"From: @h.example.jp", b"From: @h.example.jp"),
    (b"From: a\x00@h.example.jp", b"From: a\x00@h.example.jp"),
    (b"From: a\\@h.example.jp", b"From: a\\@h.example.jp"),
    (b"From: a@\xff.example.jp", b"From: a@\xff.example.jp"),
    (b"From:", b"From:"),
]


@pytest.mark.requirement("S4-34")
@pytest.mark.requirement("S4-38")
@pytest.mark.parametrize(("field", "expected"), FIELDS, ids=[field[:40].decode("latin-1") for field, _ in FIELDS])
def test_header_fields(field: bytes, expected: bytes) -> None:
    """Fails without only the domains of senders' addresses changing, exposed users aside, and all else staying."""
    around = b"Received: x\r\n", b"\r\nSubject: a@h.example.jp\r\n"
    assert masquerade_header(field, ENTIRE) == expected
    assert masquerade_header(field.join(around), ENTIRE) == expected.join(around)


@pytest.mark.requirement("S4-35")
@pytest.mark.requirement("S4-36")
@pytest.mark.parametrize(
    ("plan", "hidden"),
    [
        (LISTED, ["myhost.example.jp", "old.example"]),
        (ENTIRE, ["myhost.example.jp", "other.example.jp", "x.myhost.example.jp"]),
    ],
)
def test_the_scope(plan: MasqueradePlan, hidden: list[str]) -> None:
    """Fails without Listed meaning the listed domains alone, and EntireDomain all hosts below them as well."""
    hosts = ["myhost.example.jp", "other.example.jp", "x.myhost.example.jp", "old.example", "x.old.example", AS]
    assert [host for host in hosts if plan.hides("a", host)] == hidden
    table = MasqueradeTable([plan])
    assert [host for host in hosts if table.covering(host) is plan and host != AS] == hidden


def test_the_nearest_listed_name_decides() -> None:
    dept = MasqueradePlan(AS, ("dept.example.jp",), entire=True)
    table = MasqueradeTable([ENTIRE, dept])
    assert table.covering("x.dept.example.jp") is dept
    assert table.covering("x.example.jp") is ENTIRE
    assert table.covering("far.test") is None
    assert not MasqueradeTable([])


PIECES = st.sampled_from(
    [
        b"From:",
        b"To:",
        b"Sender: ",
        b"\r\n",
        b"\r\n ",
        b"<",
        b">",
        b"@",
        b"a",
        b"h.example.jp",
        b",",
        b";",
        b":",
        b'"',
        b"(",
        b")",
        b"\\",
        b"\xff",
        b"\xe5\xb1\xb1",
        b"\x00",
        b" ",
        b".",
        b"[",
        b"]",
        b"root@h.example.jp",
        b"b@far.test",
    ]
)


@given(st.lists(PIECES, max_size=60).map(b"".join))
def test_no_header_is_damaged(header: bytes) -> None:
    """Taking the hidden host for the shown one, every header is the same before and after; and it is done once."""
    rewritten = masquerade_header(header, ENTIRE)
    shown = b"example.jp"
    assert rewritten.replace(b"h.example.jp", shown).replace(shown + b".", shown) == header.replace(
        b"h.example.jp", shown
    ).replace(shown + b".", shown)
    assert masquerade_header(rewritten, ENTIRE) == rewritten


@given(st.binary(max_size=300))
def test_octets_without_our_names_stay(header: bytes) -> None:
    assert masquerade_header(b"From: " + header, ENTIRE) == b"From: " + header


def test_more_than_anybody_needs_stays() -> None:
    many = b",".join([b"a@h.example.jp"] * (MAX_OCTETS // 15))
    assert b"h.example" not in masquerade_header(b"From: " + many, ENTIRE)
    for more in (b"From: " + many + b"," * 3000, b"From: a@h.example.jp\r\n" * (MAX_OCTETS // 22 + 1)):
        assert masquerade_header(more, ENTIRE) == more
    for hostile in (b'"' + b"\\a" * 15_000, b"(" * 30_000, b"<" * 30_000, b"a@" * 15_000):
        assert masquerade_header(b"From: " + hostile, ENTIRE) == b"From: " + hostile


def domain(name: str, *smart_hosts: str, default: bool = False) -> DomainConfig:
    return DomainConfig(
        name, "x", 1, "Any", DeliveryPlan("Mailbox"), smart_hosts=smart_hosts, default=default, alias_domains=()
    )


PLAIN, SMART, OTHER = domain("plain.test"), domain("smart.test", "[192.0.2.5]"), domain("other.test", "[192.0.2.6]")
DEFAULT, DEFAULT_PLAIN = domain("default.test", "[192.0.2.7]", default=True), domain("default.test", default=True)


@pytest.mark.parametrize(
    ("domains", "sender", "expected"),
    [
        ((PLAIN, SMART, DEFAULT), "a@smart.test", SMART),
        ((PLAIN, SMART, DEFAULT), "a@plain.test", PLAIN),
        ((PLAIN, SMART, DEFAULT), "", DEFAULT),
        ((PLAIN, SMART, DEFAULT), "a@far.test", DEFAULT),
        ((PLAIN, SMART, DEFAULT), "a@[192.0.2.1]", DEFAULT),
        ((PLAIN, SMART, DEFAULT_PLAIN), "", DEFAULT_PLAIN),
        ((PLAIN, SMART), "", SMART),
        ((PLAIN, SMART), "a@far.test", SMART),
        ((PLAIN, SMART, OTHER), "", None),
        ((PLAIN,), "", None),
        ((), "", None),
    ],
)
def test_whose_outbound_settings_count(
    domains: tuple[DomainConfig, ...], sender: str, expected: DomainConfig | None
) -> None:
    assert outbound_domain(Tables(Configuration(1, domains, ())), sender) is expected


@pytest.mark.parametrize(
    ("address", "destination", "by"),
    [
        ("x@far.test", Destination(domain="far.test"), ("[192.0.2.5]",)),
        ("x@[192.0.2.9]", Destination(hosts=("[192.0.2.9]",)), ("[192.0.2.5]",)),
        ("x@[IPv6:2001:db8::1]", Destination(hosts=("[2001:db8::1]",)), ("[192.0.2.5]",)),
        ("x@in.test", Destination(domain="in.test", hosts=("[10.0.0.1]",)), ("[10.0.0.1]",)),
        ("x@in.test", Destination(hosts=("[store2.in.test]",)), ("[store2.in.test]",)),
        ("x@in.test", Destination(store="local", mailbox="x@in.test"), ()),
    ],
)
def test_what_goes_by_the_smart_host(address: str, destination: Destination, by: tuple[str, ...]) -> None:
    goes = GoesTo(parse_address(address), destination)
    assert by_smart_host(goes, SMART).destination.hosts == by
    assert by_smart_host(goes, PLAIN) is goes
    assert by_smart_host(goes, None) is goes


MANIFEST = """
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {{name: a, namespace: {namespace}}}
spec:
  domain: dept.example.jp
  aliasDomains: [old.example]
  recipients: {{source: {{type: Static, addresses: [a]}}}}
  outbound: {{masquerade: {masquerade}}}
"""


def compiled(masquerade: str, namespace: str = "default") -> tuple[str, MasqueradePlan | None]:
    objects = read_objects({"t": MANIFEST.format(masquerade=masquerade, namespace=namespace)})
    around = Surroundings(stores=("local",), domain_ownership={"team": ("dept.example.jp", "old.example")})
    result = compile_manifests(objects.domains, objects.policies, around)
    if result.rejected:
        return result.rejected[0][1].message, None
    return "", result.configuration.domains[0].masquerade


@pytest.mark.parametrize(
    ("masquerade", "plan"),
    [
        ("{as: Example.JP}", MasqueradePlan("example.jp", ("dept.example.jp",))),
        (
            "{as: dept.example.jp, scope: EntireDomain, envelope: true}",
            MasqueradePlan("dept.example.jp", ("dept.example.jp",), True, True),
        ),
        (
            "{as: old.example, domains: [h.dept.example.jp, H.dept.example.jp], exposedUsers: [Root]}",
            MasqueradePlan("old.example", ("h.dept.example.jp",), exposed=("root",)),
        ),
    ],
)
def test_what_is_accepted(masquerade: str, plan: MasqueradePlan) -> None:
    assert compiled(masquerade) == ("", plan)


@pytest.mark.parametrize(
    ("masquerade", "says"),
    [
        ("{as: dept.example.jp}", "is what others see already"),
        ("{as: dept.example.jp, domains: [dept.example.jp]}", "is what others see already"),
        ("{as: bank.example}", "spec.outbound.masquerade.as: bank.example is neither"),
        ("{as: jp}", "top-level"),
        ("{as: a_b}", "is not a domain name"),
        ("{as: example.jp, domains: [far.test]}", "spec.outbound.masquerade.domains: far.test is neither"),
        ("{as: example.jp, domains: [example.jp]}", "is neither"),
        ("{as: example.jp, exposedUsers: [root@dept.example.jp]}", "a local part alone is wanted"),
    ],
)
def test_nonsense_is_a_condition(masquerade: str, says: str) -> None:
    message, plan = compiled(masquerade)
    assert says in message
    assert plan is None


def test_a_namespace_shows_only_what_it_owns() -> None:
    assert "may not own example.jp" in compiled("{as: example.jp}", "team")[0]
    assert compiled("{as: old.example}", "team")[0] == ""
