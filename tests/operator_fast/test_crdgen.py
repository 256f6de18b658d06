"""The generated CRDs: equal to what is committed, structural, limited everywhere, without defaults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from crdgen.__main__ import CRDS, generated, main
from crdgen.definitions import KINDS, definition
from crdgen.schema import SchemaError, schema_of
from gatepost.core.manifest.mail_domain import MailDomainSpec
from gatepost.core.manifest.object import SpecPart
from gatepost.core.manifest.relay_policy import RelayPolicySpec


class _Text(SpecPart, frozen=True):
    text: str


class _Many(SpecPart, frozen=True):
    many: tuple[Annotated[str, msgspec.Meta(max_length=3)], ...]


class _Number(SpecPart, frozen=True):
    number: int


class _Huge(SpecPart, frozen=True):
    number: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Keys(SpecPart, frozen=True):
    by_name: Annotated[dict[str, bool], msgspec.Meta(max_length=3)]


class _ReservedA(SpecPart, frozen=True, tag="A", tag_field="type"):
    namespace: bool


class _ReservedB(SpecPart, frozen=True, tag="B", tag_field="type"):
    other: bool


class _Word(SpecPart, frozen=True):
    choice: _ReservedA | _ReservedB


class _Either(SpecPart, frozen=True):
    value: int | str


class _A(SpecPart, frozen=True, tag="A", tag_field="type"):
    """The first."""

    both: bool
    """Meant by both."""
    one: bool | None = None


class _B(SpecPart, frozen=True, tag="B", tag_field="type"):
    two: Annotated[int, msgspec.Meta(ge=1, le=9)]
    both: bool | None = None
    """Meant by both."""


class _Union(SpecPart, frozen=True):
    choice: _A | _B


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a document."""
    if isinstance(value, dict):
        yield value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from nodes(child)


def test_what_is_committed_is_what_the_types_say() -> None:
    assert {path.name: path.read_text("utf-8") for path in CRDS.glob("*.yaml")} == generated()


def test_check_names_what_is_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--folder", str(tmp_path)]) == 0
    assert main(["--check", "--folder", str(tmp_path)]) == 0
    stale = tmp_path / "maildomains.yaml"
    stale.write_text(stale.read_text().replace("maxItems", "maxLength", 1))
    (tmp_path / "relaypolicies.yaml").unlink()
    (tmp_path / "other.yaml").write_text("")
    assert main(["--check", "--folder", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "maildomains.yaml: is stale" in said
    assert "relaypolicies.yaml: is missing" in said
    assert "other.yaml: no type makes this file" in said


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (_Text, "x.text: a text needs a max_length"),
        (_Many, "x.many: a list needs a max_length"),
        (_Number, "x.number: an integer needs ge and le"),
        (_Huge, r"x.number: limits beyond 2\*\*53"),
        (_Keys, "x.byName: a map needs a max_length, and so do its keys"),
        (_Word, "x.choice.namespace: cannot be written in a rule"),
        (_Either, "x.value: only tagged unions"),
    ],
)
def test_what_has_no_limit_or_no_structural_form_is_refused(kind: type, reason: str) -> None:
    with pytest.raises(SchemaError, match=reason):
        schema_of(kind, "x")


def test_a_union_is_one_object_with_rules() -> None:
    assert schema_of(_Union, "x")["properties"]["choice"] == {
        "type": "object",
        "properties": {
            "type": {"type": "string", "enum": ["A", "B"], "description": "A: The first."},
            "both": {"type": "boolean", "description": "Meant by both."},
            "one": {"type": "boolean"},
            "two": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 9},
        },
        "required": ["type"],
        "x-kubernetes-validations": [
            {"rule": "self.type != 'A' || has(self.both)", "message": "both is required with type A"},
            {
                "rule": "!has(self.one) || self.type in ['A']",
                "message": "one goes only with type A",
                "fieldPath": ".one",
            },
            {
                "rule": "!has(self.two) || self.type in ['B']",
                "message": "two goes only with type B",
                "fieldPath": ".two",
            },
            {"rule": "self.type != 'B' || has(self.two)", "message": "two is required with type B"},
        ],
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_nothing_has_a_default(kind: Any) -> None:
    """`default` may be a property's name (spec.default), never a keyword beside `type`."""
    for node in nodes(definition(kind)["spec"]["versions"][0]["schema"]):
        if isinstance(node.get("type"), str):
            assert "default" not in node


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_everything_has_a_type_and_a_limit(kind: Any) -> None:
    schema = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for node in nodes({name: schema["properties"][name] for name in ("spec", "status")}):
        match node.get("type"):
            case "string":
                assert "enum" in node or "maxLength" in node
            case "array":
                assert "maxItems" in node
                assert "type" in node["items"]
            case "object":
                assert "properties" in node or "maxProperties" in node


def test_the_columns_answer_whether_it_works() -> None:
    columns = {
        kind.kind: [
            column["name"] for column in definition(kind)["spec"]["versions"][0]["additionalPrinterColumns"]
        ]
        for kind in KINDS
    }
    assert columns == {
        "MailDomain": ["Domain", "Delivery", "Accepted", "Programmed", "Age"],
        "RelayPolicy": ["Target", "Listeners", "Mode", "Accepted", "Programmed", "Age"],
    }


@pytest.mark.parametrize("spec", [MailDomainSpec, RelayPolicySpec])
def test_every_field_of_the_types_is_in_the_schema(spec: type[msgspec.Struct]) -> None:
    written = [field.encode_name for field in msgspec.structs.fields(spec)]
    assert list(schema_of(spec, "spec")["properties"]) == written


def test_what_is_written_below_a_field_describes_it() -> None:
    schema = schema_of(MailDomainSpec, "spec")
    assert schema["properties"]["recipients"]["properties"]["aliases"]["description"].startswith("Local part ->")
