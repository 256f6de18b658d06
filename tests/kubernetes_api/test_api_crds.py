"""The CRDs on a real API server: what they refuse and with which words, and what people see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatepost.core.compile import compile_manifests
from gatepost.core.compile.everything import Surroundings
from gatepost.core.manifest.documents import read_object
from gatepost.core.manifest.mail_domain import MailDomain
from gatepost.core.manifest.read import ManifestError
from gatepost.core.manifest.settings import Role
from testbed.apiserver import ApiServer
from testbed.process import ServerError

pytestmark = pytest.mark.node

REPOSITORY = Path(__file__).resolve().parents[2]
# The others there are settings and values of the chart.
EXAMPLES = [
    path for path in sorted((REPOSITORY / "examples").rglob("*.yaml")) if "kind: MailDomain" in path.read_text()
]
Document = dict[str, Any]

BY_LABEL = {"selector": {"matchLabels": {"tier": "gold"}}}
STATIC = {"source": {"type": "Static", "addresses": ["postmaster"]}}


def mail_domain(**spec: Any) -> Document:
    return _object("MailDomain", {"domain": "a.test", "recipients": STATIC, **spec})


def relay_policy(**spec: Any) -> Document:
    return _object("RelayPolicy", {"target": {"type": "Listeners", "listeners": ["mx"]}, **spec})


def of_domains(selection: Document, **spec: Any) -> Document:
    return relay_policy(target={"type": "MailDomains", "mailDomains": selection}, **spec)


def _object(kind: str, spec: Document) -> Document:
    whole = {name: value for name, value in spec.items() if value is not None}
    return {"apiVersion": "gatepost.dev/v1alpha1", "kind": kind, "metadata": {"name": "it"}, "spec": whole}


REFUSED: list[tuple[str, Document, str]] = [
    ("no domain", mail_domain(domain=None), "spec.domain: Required value"),
    ("empty domain", mail_domain(domain=""), "spec.domain"),
    ("long domain", mail_domain(domain="a" * 254), "spec.domain: Too long: may not be more than 253"),
    ("no recipients", mail_domain(recipients=None), "spec.recipients: Required value"),
    ("no source", mail_domain(recipients={}), "spec.recipients.source: Required value"),
    (
        "unknown source",
        mail_domain(recipients={"source": {"type": "Guess"}}),
        'Unsupported value: "Guess": supported values: "Directory", "Static", "CallAhead", "Any"',
    ),
    (
        "no type",
        mail_domain(recipients={"source": {"addresses": ["a"]}}),
        "spec.recipients.source.type: Required value",
    ),
    (
        "a member's field lacks",
        mail_domain(recipients={"source": {"type": "Directory"}}),
        "directoryRef is required with type Directory",
    ),
    (
        "another member's field",
        mail_domain(recipients={"source": {"type": "Any", "addresses": ["a"]}}),
        "spec.recipients.source.addresses: Invalid value: addresses goes only with type Static",
    ),
    (
        "empty list",
        mail_domain(recipients={"source": {"type": "Static", "addresses": []}}),
        "spec.recipients.source.addresses: Invalid value",
    ),
    (
        "too many addresses",
        mail_domain(recipients={"source": {"type": "Static", "addresses": ["abc"] * 10001}}),
        "spec.recipients.source.addresses: Too many: 10001: must have at most 10000 items",
    ),
    (
        "DeliverTo without an address",
        mail_domain(recipients={**STATIC, "unknown": "DeliverTo"}),
        "unknownDeliverTo goes with unknown: DeliverTo, and only with it",
    ),
    (
        "an address without DeliverTo",
        mail_domain(recipients={**STATIC, "unknownDeliverTo": "a@a.test"}),
        "unknownDeliverTo goes with unknown: DeliverTo, and only with it",
    ),
    (
        "long key",
        mail_domain(recipients={**STATIC, "aliases": {"a" * 65: ["b@a.test"]}}),
        "spec.recipients.aliases: Invalid value: a key has 1 to 64 characters",
    ),
    (
        "empty key",
        mail_domain(recipients={**STATIC, "roleAddresses": {"": "b@a.test"}}),
        "spec.recipients.roleAddresses: Invalid value: a key has 1 to 64 characters",
    ),
    (
        "too many keys",
        mail_domain(recipients={**STATIC, "roleAddresses": {f"r{n}": "b@a.test" for n in range(33)}}),
        "spec.recipients.roleAddresses: Too many: 33: must have at most 32 items",
    ),
    (
        "size",
        mail_domain(recipients={**STATIC, "maxMessageSize": "25 MB"}),
        "spec.recipients.maxMessageSize: Invalid value",
    ),
    (
        "long separator",
        mail_domain(recipients={**STATIC, "subaddressing": {"separators": ["--"]}}),
        "spec.recipients.subaddressing.separators[0]",
    ),
    ("hosts lack", mail_domain(delivery={"type": "Relay"}), "hosts is required with type Relay"),
    (
        "store with Relay",
        mail_domain(delivery={"type": "Relay", "hosts": ["mx.test"], "store": "x"}),
        "spec.delivery.store: Invalid value: store goes only with type Mailbox",
    ),
    (
        "a number of days",
        mail_domain(outbound={"retry": {"expireAfter": "5d"}}),
        "spec.outbound.retry.expireAfter: Invalid value",
    ),
    ("unknown field", mail_domain(recipient={}), 'strict decoding error: unknown field "spec.recipient"'),
    ("text for a truth", mail_domain(default="yes"), "spec.default: Invalid value"),
    ("no target", relay_policy(target=None), "spec.target: Required value"),
    (
        "no listeners",
        relay_policy(target={"type": "Listeners"}),
        "listeners is required with type Listeners",
    ),
    (
        "listeners of a domain policy",
        relay_policy(target={"type": "MailDomains", "mailDomains": {"names": ["a"]}, "listeners": ["mx"]}),
        "listeners goes only with type Listeners",
    ),
    (
        "names and selector",
        of_domains({"names": ["a"], "selector": {"matchLabels": {"tier": "gold"}}}),
        "exactly one of names and selector is expected",
    ),
    ("neither names nor selector", of_domains({}), "exactly one of names and selector is expected"),
    ("a listener's exemptions", relay_policy(exemptions=["Dnsbl"]), "exemptions are a domain policy's"),
    (
        "a domain's allowExemptions",
        of_domains({"names": ["a"]}, allowExemptions=["Dnsbl"]),
        "allowExemptions is a listener policy's",
    ),
    (
        "a Shadow's rollout",
        relay_policy(mode="Shadow", rollout={"percent": 5}),
        "a Shadow acts on nobody, so it has no rollout",
    ),
    ("more than all", relay_policy(rollout={"percent": 101}), "spec.rollout.percent: Invalid value: 101"),
    (
        "zero",
        relay_policy(connection={"perHost": {"concurrent": 0}}),
        "spec.connection.perHost.concurrent: Invalid value: 0",
    ),
    (
        "more than a million",
        relay_policy(recipients={"max": 1_000_001}),
        "spec.recipients.max: Invalid value: 1000001",
    ),
    (
        "mechanism",
        relay_policy(relay={"authenticated": {"mechanisms": ["DIGEST-MD5"]}}),
        'Unsupported value: "DIGEST-MD5"',
    ),
    ("relay without networks", relay_policy(relay={"clients": [{}]}), "spec.relay.clients[0].networks: Required"),
    ("TLS version", relay_policy(tls={"minVersion": "1.0"}), 'Unsupported value: "1.0"'),
]

TAKEN: list[tuple[str, Document]] = [
    ("least domain", mail_domain()),
    ("U-labels", mail_domain(domain="日本語.example")),
    ("any", mail_domain(recipients={"source": {"type": "Any"}})),
    ("deliver to", mail_domain(recipients={**STATIC, "unknown": "DeliverTo", "unknownDeliverTo": "a@a.test"})),
    (
        "as large as it gets",
        mail_domain(
            recipients={
                "source": {"type": "Static", "addresses": [f"user-{n:05d}@a.test" for n in range(10_000)]},
                "aliases": {f"alias-{n:05d}": ["abc@a.test"] for n in range(10_000)},
            }
        ),
    ),
    ("relay", mail_domain(delivery={"type": "Relay", "hosts": ["[mail.test]:26", "mx.test"]})),
    ("a policy with nothing", relay_policy()),
    ("a domain's canary", of_domains(BY_LABEL, exemptions=["Dnsbl"], rollout={"percent": 5})),
    ("a domain's Shadow", of_domains(BY_LABEL, mode="Shadow")),
    (
        "a policy with much",
        relay_policy(
            connection={"perHost": {"concurrent": 5}, "idleTimeout": "1m30s"},
            relay={"clients": [{"networks": ["10.0.0.0/8"], "senderDomains": ["Local", "b.test"]}]},
            smtp={"bareNewline": "Normalize", "normalizeNetworks": ["10.0.0.0/8"]},
            tls={"mode": "Require", "minVersion": "1.3"},
        ),
    ),
]


@pytest.fixture(scope="module")
def namespace(api: ApiServer) -> Iterator[str]:
    api.kubectl("create", "namespace", "crds")
    yield "crds"
    api.kubectl("-n", "crds", "delete", "maildomains,relaypolicies", "--all")


def apply(api: ApiServer, namespace: str, document: Document, *words: str) -> str:
    return api.kubectl("-n", namespace, "create", "-f", "-", *words, stdin=yaml.safe_dump(document))


def understood(document: Document) -> bool:
    """Whether the program itself would take the object."""
    try:
        manifest = read_object(document, "a test")
    except ManifestError:
        return False
    around = Surroundings(
        listeners={"mx": Role.INTERNAL}, directories=("users",), stores=("local",), any_namespace=True
    )
    domains, policies = ([manifest], []) if isinstance(manifest, MailDomain) else ([], [manifest])
    return not compile_manifests(domains, policies, around).rejected


@pytest.mark.parametrize(("document", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_wrong_is_refused_with_the_field_and_the_reason(
    api: ApiServer, namespace: str, document: Document, words: str
) -> None:
    with pytest.raises(ServerError) as caught:
        apply(api, namespace, document, "--dry-run=server")
    said = str(caught.value).replace('Invalid value: "object": ', "Invalid value: ")
    assert words in said.replace('Invalid value: "array": ', "Invalid value: ")


@pytest.mark.parametrize("document", [row[1] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_the_program_refuses_the_same(document: Document) -> None:
    assert not understood(document)


@pytest.mark.parametrize("document", [row[1] for row in TAKEN], ids=[row[0] for row in TAKEN])
def test_what_is_right_is_taken_by_both(api: ApiServer, namespace: str, document: Document) -> None:
    apply(api, namespace, document, "--dry-run=server")
    assert understood(document)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_the_examples_are_taken(api: ApiServer, namespace: str, path: Path) -> None:
    api.kubectl("-n", namespace, "apply", "--dry-run=server", "-f", path)


def test_a_domain_cannot_be_changed_into_another(api: ApiServer, namespace: str) -> None:
    apply(api, namespace, mail_domain())
    with pytest.raises(ServerError, match="is immutable: make a new MailDomain for another domain"):
        api.kubectl("-n", namespace, "patch", "mdom", "it", "--type=merge", "-p", '{"spec": {"domain": "b.test"}}')
    api.kubectl("-n", namespace, "patch", "mdom", "it", "--type=merge", "-p", '{"spec": {"default": true}}')
    api.kubectl("-n", namespace, "delete", "mdom", "it")


def test_the_status_is_a_resource_of_its_own(api: ApiServer, namespace: str) -> None:
    apply(api, namespace, {**mail_domain(), "status": {"asciiDomain": "forged.test"}})
    assert "status" not in api.get("-n", namespace, "mdom", "it")
    bad = '{"status": {"conditions": [{"type": "Accepted", "status": "Perhaps"}]}}'
    with pytest.raises(ServerError, match="Unsupported value"):
        api.kubectl("-n", namespace, "patch", "mdom", "it", "--subresource=status", "--type=merge", "-p", bad)
    api.kubectl("-n", namespace, "delete", "mdom", "it")


def test_no_default_is_written_into_what_a_user_wrote(api: ApiServer, namespace: str) -> None:
    apply(api, namespace, relay_policy())
    assert api.get("-n", namespace, "rpol", "it")["spec"] == relay_policy()["spec"]
    api.kubectl("-n", namespace, "delete", "rpol", "it")


def test_short_names_category_and_columns(api: ApiServer, namespace: str) -> None:
    apply(api, namespace, mail_domain(delivery={"type": "Discard"}))
    apply(api, namespace, relay_policy())
    domains = api.kubectl("-n", namespace, "get", "mdom").split()
    policies = api.kubectl("-n", namespace, "get", "rpol").split()
    both = api.kubectl("-n", namespace, "get", "gatepost", "-o", "name").split()
    assert domains[:7] == ["NAME", "DOMAIN", "DELIVERY", "ACCEPTED", "PROGRAMMED", "AGE", "it"]
    assert domains[7:9] == ["a.test", "Discard"]
    assert policies[:8] == ["NAME", "TARGET", "LISTENERS", "MODE", "ACCEPTED", "PROGRAMMED", "AGE", "it"]
    assert policies[8:10] == ["Listeners", '["mx"]']
    assert both == ["maildomain.gatepost.dev/it", "relaypolicy.gatepost.dev/it"]
    api.kubectl("-n", namespace, "delete", "gatepost", "--all")


def test_fields_are_explained(api: ApiServer) -> None:
    said = api.kubectl("explain", "maildomain.spec.recipients.source.type")
    assert "Recipients are those that a directory of the Settings knows" in " ".join(said.split())
