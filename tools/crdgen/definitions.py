"""The two CustomResourceDefinitions: names, columns and the rules that the types cannot say."""

import sys
from typing import Any, NamedTuple

import msgspec

from crdgen.schema import Schema, SchemaError, schema_of
from gatepost.core.manifest import mail_domain, relay_policy
from gatepost.core.manifest.mail_domain import MailDomain, MailDomainSpec
from gatepost.core.manifest.object import GROUP, VERSION
from gatepost.core.manifest.relay_policy import RelayPolicy, RelayPolicySpec
from gatepost.core.manifest.status import MailDomainStatus, RelayPolicyStatus

CATEGORY = "gatepost"


class Rule(NamedTuple):
    """A CEL rule at `path` of the spec. `at` is where the API server says the fault is, relative to the path."""

    path: tuple[str, ...]
    rule: str
    message: str
    at: str = ""


class Kind(NamedTuple):
    kind: str
    plural: str
    short: str
    whole: type[msgspec.Struct]
    spec: type[msgspec.Struct]
    status: type[msgspec.Struct]
    columns: tuple[tuple[str, str, str], ...]
    rules: tuple[Rule, ...] = ()

    @property
    def file(self) -> str:
        return f"{self.plural}.yaml"


def _condition(name: str) -> str:
    return f'.status.conditions[?(@.type=="{name}")].status'


_AGE = ("Age", "date", ".metadata.creationTimestamp")
_WORKS = (
    ("Accepted", "string", _condition("Accepted")),
    ("Programmed", "string", _condition("Programmed")),
    _AGE,
)

KINDS = (
    Kind(
        mail_domain.KIND,
        mail_domain.PLURAL,
        "mdom",
        MailDomain,
        MailDomainSpec,
        MailDomainStatus,
        (("Domain", "string", ".spec.domain"), ("Delivery", "string", ".spec.delivery.type"), *_WORKS),
        (
            Rule(("domain",), "self == oldSelf", "is immutable: make a new MailDomain for another domain"),
            Rule(
                ("recipients",),
                "has(self.unknownDeliverTo) == (has(self.unknown) && self.unknown == 'DeliverTo')",
                "unknownDeliverTo goes with unknown: DeliverTo, and only with it",
                ".unknownDeliverTo",
            ),
        ),
    ),
    Kind(
        relay_policy.KIND,
        relay_policy.PLURAL,
        "rpol",
        RelayPolicy,
        RelayPolicySpec,
        RelayPolicyStatus,
        (
            ("Target", "string", ".spec.target.type"),
            ("Listeners", "string", ".spec.target.listeners"),
            ("Mode", "string", ".spec.mode"),
            *_WORKS,
        ),
        (
            Rule(
                ("target", "mailDomains"),
                "has(self.names) != has(self.selector)",
                "exactly one of names and selector is expected",
            ),
            Rule(
                (),
                "!has(self.exemptions) || self.target.type == 'MailDomains'",
                "exemptions are a domain policy's (target MailDomains); a listener's has allowExemptions",
                ".exemptions",
            ),
            Rule(
                (),
                "!has(self.allowExemptions) || self.target.type == 'Listeners'",
                "allowExemptions is a listener policy's (target Listeners)",
                ".allowExemptions",
            ),
            Rule(
                (),
                "!has(self.rollout) || !has(self.mode) || self.mode == 'Enforce'",
                "a Shadow acts on nobody, so it has no rollout",
                ".rollout",
            ),
        ),
    ),
)


def definition(kind: Kind) -> dict[str, Any]:
    """Return the CustomResourceDefinition as a plain document. Raises SchemaError."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": [kind.short],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": type_, "jsonPath": path} for name, type_, path in kind.columns
                    ],
                    "schema": {"openAPIV3Schema": _whole(kind)},
                }
            ],
        },
    }


def _whole(kind: Kind) -> Schema:
    spec = schema_of(kind.spec, f"{kind.kind}.spec")
    for rule in kind.rules:
        _attach(spec, rule)
    return {
        "type": "object",
        "description": _purpose(kind),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": schema_of(kind.status, f"{kind.kind}.status"),
        },
    }


def _purpose(kind: Kind) -> str:
    """The first paragraph of the module that defines the kind."""
    text = sys.modules[kind.whole.__module__].__doc__ or ""
    return " ".join(text.split("\n\n")[0].split())


def _attach(spec: Schema, rule: Rule) -> None:
    schema = spec
    for name in rule.path:
        if name not in schema.get("properties", {}):
            raise SchemaError(f"a rule is about {'.'.join(rule.path)}, which there is not")
        schema = schema["properties"][name]
    written: Schema = {"rule": rule.rule, "message": rule.message}
    if rule.at:
        written["fieldPath"] = rule.at
    schema.setdefault("x-kubernetes-validations", []).append(written)
