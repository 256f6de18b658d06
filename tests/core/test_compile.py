"""compile: what users write becomes the normalised configuration, pinned by golden files, or a condition."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from gatepost.core.compile import Compiled, Surroundings, compile_manifests
from gatepost.core.configuration import CLOSED, SCHEMA_MAJOR, decode_configuration
from gatepost.core.manifest.documents import read_objects
from gatepost.core.manifest.settings import Role

GOLDEN = Path(__file__).parent / "golden"
AROUND = Surroundings(
    listeners={"mx": Role.MX, "submission": Role.SUBMISSION, "inside": Role.INTERNAL},
    directories=("corp",),
    stores=("local", "dovecot"),
    domain_ownership={"team": (".team.example",)},
)
DOMAIN = """
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "{created}"}}
spec: {{domain: {domain}, recipients: {{source: {{type: Static, addresses: [a]}}}}{more}}}
"""


def compiled(*documents: str, around: Surroundings = AROUND) -> Compiled:
    objects = read_objects({"test.yaml": "\n---\n".join(documents)})
    return compile_manifests(objects.domains, objects.policies, around)


def domain(
    domain: str = "a.example",
    name: str = "a",
    namespace: str = "default",
    created: str = "2026-01-01T00:00:00Z",
    more: str = "",
) -> str:
    return DOMAIN.format(name=name, namespace=namespace, domain=domain, created=created, more=more)


def policy(spec: str, name: str = "p", namespace: str = "default", created: str = "") -> str:
    return (
        f"apiVersion: gatepost.dev/v1alpha1\nkind: RelayPolicy\nmetadata: {{name: {name}, namespace: {namespace}, "
        f'creationTimestamp: "{created}"}}\nspec: {spec}\n'
    )


def reasons(result: Compiled) -> list[tuple[str, str, str]]:
    return [(key.name, condition.type, condition.reason) for key, condition in result.rejected]


@pytest.mark.parametrize("source", sorted(path.stem for path in GOLDEN.glob("*.yaml")))
def test_golden(source: str) -> None:
    """The compiled form of each golden/*.yaml; write a new .json only for a change that is meant."""
    result = compiled((GOLDEN / f"{source}.yaml").read_text("utf-8"))
    assert result.rejected == ()
    expected = (GOLDEN / f"{source}.json").read_text("utf-8")
    assert json.dumps(json.loads(result.configuration.encode()), indent=1, sort_keys=True) + "\n" == expected


def test_golden_files_are_there() -> None:
    assert len(list(GOLDEN.glob("*.yaml"))) >= 3


def test_nothing_compiles_to_closed() -> None:
    assert compile_manifests((), (), Surroundings()).configuration == CLOSED


def test_encoding_can_be_read_back() -> None:
    configuration = compiled(domain(), policy("{target: {type: Listeners, listeners: [mx]}}")).configuration
    assert decode_configuration(configuration.encode()) == configuration


def test_another_major_is_refused() -> None:
    other = msgspec.structs.replace(CLOSED, schema=SCHEMA_MAJOR + 1)
    with pytest.raises(ValueError, match="schema"):
        decode_configuration(other.encode())


def test_order_of_objects_does_not_matter() -> None:
    one, two = domain("a.example", "a"), domain("b.example", "b")
    assert compiled(one, two).configuration.hash == compiled(two, one).configuration.hash


def test_the_oldest_object_wins_a_domain() -> None:
    older = domain("a.example", "z", created="2025-01-01T00:00:00Z")
    result = compiled(domain("a.example", "a"), older)
    assert reasons(result) == [("a", "Accepted", "Conflicted")]
    assert [d.origin for d in result.configuration.domains] == ["MailDomain default/z"]


def test_an_alias_domain_conflicts_too() -> None:
    result = compiled(domain("a.example", "a"), domain("b.example", "b", more=", aliasDomains: [A.example]"))
    assert reasons(result) == [("b", "Accepted", "Conflicted")]


@pytest.mark.parametrize(
    ("document", "reason", "words"),
    [
        (domain("a_b.example"), "Invalid", "spec.domain"),
        (domain(more=", delivery: {type: Mailbox, store: none}"), "StoreNotFound", "there are: dovecot, local"),
        (domain(more=", delivery: {type: Relay, hosts: ['192.0.2.1']}"), "Invalid", "[192.0.2.1]"),
        (domain(more=", outbound: {retry: {tiers: [7m]}}"), "Invalid", "none of"),
        (domain(more=", outbound: {retry: {expireAfter: 1000h}}"), "Invalid", "168h"),
        (domain("x.example", namespace="team"), "NotAllowed", "domainOwnership"),
        (policy("{target: {type: Listeners, listeners: [none]}}"), "ListenerNotFound", "there are"),
        (
            policy("{target: {type: Listeners, listeners: [mx]}, relay: {clients: [{networks: [10.0.0.0/8]}]}}"),
            "NotAllowed",
            "allowOnPublicListeners",
        ),
        (
            policy(
                "{target: {type: Listeners, listeners: [inside]}, relay: {clients: [{networks: [10.0.0.1/8]}]}}"
            ),
            "Invalid",
            "host bits",
        ),
        (policy("{target: {type: Listeners, listeners: [mx]}}", namespace="team"), "NotAllowed", "namespace"),
    ],
)
def test_a_bad_object_is_left_out_with_its_reason(document: str, reason: str, words: str) -> None:
    result = compiled(domain("good.example", "good"), document)
    assert [entry[2] for entry in reasons(result)] == [reason]
    assert words in result.rejected[0][1].message
    assert [d.domain for d in result.configuration.domains] == ["good.example"]


def test_a_namespace_may_use_its_suffix() -> None:
    assert compiled(domain("mail.team.example", namespace="team")).rejected == ()


def test_two_policies_for_one_listener() -> None:
    spec = "{target: {type: Listeners, listeners: [mx]}, recipients: {max: %d}}"
    result = compiled(policy(spec % 5, "b", created="2025"), policy(spec % 6, "a", created="2026"))
    assert reasons(result) == [("a", "Accepted", "Conflicted")]
    assert next(p for p in result.configuration.listeners if p.listener == "mx").max_recipients == 5


@pytest.mark.requirement("S1-2")
def test_listeners_without_a_policy_are_closed() -> None:
    """No relaying and, on submission, AUTH before anything. Fails without the closed defaults of compile."""
    by_name = {p.listener: p for p in compiled().configuration.listeners}
    assert by_name["mx"].relay_clients == ()
    assert not by_name["mx"].auth_enabled
    assert by_name["submission"].auth_require_for.value == "All"


def test_warnings_are_told_and_do_not_refuse() -> None:
    any_source = domain().replace("{type: Static, addresses: [a]}", "{type: Any}")
    result = compiled(any_source)
    assert result.rejected == ()
    ((_, warnings),) = result.warnings.items()
    assert "backscatter" in warnings[0]
