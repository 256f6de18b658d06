"""The ARC test suite: 171 chains to validate and 17 messages to seal: tests/data/arc/ORIGIN.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatepost.core.authentication.arc import ArcSealer, ArcStatus, ArcVerification
from gatepost.core.authentication.dkim import BodyHasher
from gatepost.core.authentication.results_field import collected_results
from gatepost.core.authentication.tag_list import read_tags, without_space
from gatepost.core.headers import Field, header_end, read_header

DATA = Path(__file__).parents[1] / "data" / "arc"


def cases(file: str) -> list[Any]:
    documents = yaml.load_all((DATA / file).read_bytes(), yaml.CSafeLoader)
    return [
        pytest.param(document, test, id=name) for document in documents for name, test in document["tests"].items()
    ]


VALIDATION = cases("arc-draft-validation-tests.yml")
SIGNING = cases("arc-draft-sign-tests.yml")


def message_of(test: dict[str, Any]) -> tuple[tuple[Field, ...], bytes]:
    message = test["message"].replace("\n", "\r\n").encode()
    end = header_end(message)
    return read_header(message), message[end + 2 :]


def zone_of(document: dict[str, Any], make_zone: Callable[..., Any]) -> Any:
    records = document.get("txt-records") or {}
    return make_zone({(name, "TXT"): [text.replace("\n", "")] for name, text in records.items()})


def validate(fields: tuple[Field, ...], body: bytes, zone: Any, extra: frozenset[Any] = frozenset()) -> Any:
    verification = ArcVerification(fields)
    hasher = BodyHasher(verification.wanted | extra)
    hasher.update(body)
    bodies = hasher.finish()
    return zone.settle(verification.verify(bodies)), bodies


@pytest.mark.parametrize(("document", "test"), VALIDATION)
def test_validation(document: dict[str, Any], test: dict[str, Any], make_zone: Callable[..., Any]) -> None:
    fields, body = message_of(test)
    result, _ = validate(fields, body, zone_of(document, make_zone))
    # An empty cv leaves the answer open: the newest set says itself that the chain failed.
    if test["cv"]:
        assert result.status == test["cv"].lower(), result
    else:
        assert result.closed or result.status is ArcStatus.FAIL


@pytest.mark.parametrize(("document", "test"), SIGNING)
def test_signing(document: dict[str, Any], test: dict[str, Any], make_zone: Callable[..., Any]) -> None:
    fields, body = message_of(test)
    sealer = ArcSealer(document["domain"], document["sel"], document["privatekey"].encode())
    zone = zone_of(document, make_zone)
    result, bodies = validate(fields, body, zone, frozenset({sealer.wanted}))
    added = sealer.seal(
        fields,
        bodies,
        result,
        test["srv-id"],
        collected_results(fields, test["srv-id"]),
        test["t"],
        test["sig-headers"].split(":"),
    )
    if not test["AS"]:
        assert added is None
        return
    assert added is not None
    seal, signature, results = read_header(added)
    assert tags_of(seal) == expected(test["AS"])
    assert tags_of(signature) == expected(test["AMS"])
    assert " ".join(results.value.decode().split()) == " ".join(test["AAR"].split())


def tags_of(field: Field) -> dict[str, str]:
    return {name: without_space(value) for name, value in read_tags(field.value.decode()).items()}


def expected(text: str) -> dict[str, str]:
    return {name: without_space(value) for name, value in read_tags(" ".join(text.split())).items()}


def test_the_suites_are_whole() -> None:
    assert (len(VALIDATION), len(SIGNING)) == (171, 17)
