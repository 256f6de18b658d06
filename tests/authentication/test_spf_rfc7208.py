"""The test suite of RFC 7208 (openspf.org), all 203 cases: tests/data/spf/ORIGIN.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatepost.core.authentication.spf import check_mail_from

SUITE = Path(__file__).parents[1] / "data" / "spf" / "rfc7208-tests.yml"
DEFAULT = "DEFAULT"  # the suite's name for the explanation of a receiver, which we leave to the policy


def cases() -> list[Any]:
    # The C loader: the pure one needs a second and a half for the file.
    documents = [one for one in yaml.load_all(SUITE.read_bytes(), yaml.CSafeLoader) if one]
    return [
        pytest.param(document["zonedata"], test, id=name)
        for document in documents
        for name, test in document["tests"].items()
    ]


def records_of(zonedata: dict[str, Any]) -> tuple[dict[tuple[str, str], list[str]], set[tuple[str, str]]]:
    """Read the suite's form: records by type, "TIMEOUT" for every type that is not listed before it."""
    records: dict[tuple[str, str], list[str]] = {}
    failing: set[tuple[str, str]] = set()
    for name, entries in zonedata.items():
        own = name.lower().removesuffix(".")
        types = {kind for entry in entries if entry != "TIMEOUT" for kind in entry}
        has_own_text = "TXT" in types
        # "TXT: NONE" only keeps the SPF record from standing in for it.
        types = {kind for kind in types if {kind: "NONE"} not in entries}
        for entry in entries:
            if entry == "TIMEOUT":
                failing.update((own, kind) for kind in ("A", "AAAA", "MX", "PTR", "TXT") if kind not in types)
                continue
            ((kind, value),) = entry.items()
            # An SPF record of the suite is a TXT record unless the name has TXT records of its own.
            if kind == "SPF":
                if has_own_text:
                    continue
                kind = "TXT"
            if value == "TIMEOUT":
                failing.add((own, kind))
            elif value != "NONE":
                records.setdefault((own, kind), []).append(text_of(kind, value))
    return records, failing


def text_of(kind: str, value: Any) -> str:
    if kind == "MX":
        return f"{value[0]} {value[1].lower()}"
    if kind == "TXT":
        text = "".join(value) if isinstance(value, list) else value
        return str(text).encode("utf-8").decode("ascii", "surrogateescape")
    return str(value)


@pytest.mark.parametrize(("zonedata", "test"), cases())
def test_rfc7208_suite(zonedata: dict[str, Any], test: dict[str, Any], make_zone: Callable[..., Any]) -> None:
    records, failing = records_of(zonedata)
    zone = make_zone(records)
    zone.failing = failing
    result = zone.settle(
        check_mail_from(str(test["host"]), str(test["helo"]), str(test["mailfrom"]), "receiver.example", 1_000_000)
    )
    expected = test["result"]
    assert result.status in (expected if isinstance(expected, list) else [expected]), result
    if test.get("explanation") and test["explanation"] != DEFAULT:
        assert result.explanation == test["explanation"]


def test_the_suite_is_whole() -> None:
    assert len(cases()) == 203
