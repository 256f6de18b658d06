"""Tables of RFC 9989's examples and of other implementations' facts: tests/data/dmarc/ORIGIN.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatepost.core.authentication.dkim import DkimSignatureResult, DkimStatus
from gatepost.core.authentication.dmarc import AuthorError, DmarcStatus, author_domains, check_dmarc
from gatepost.core.authentication.dmarc.record import effective, read_record
from gatepost.core.authentication.dmarc.tree_walk import walk
from gatepost.core.authentication.spf import SpfIdentity, SpfResult, SpfStatus
from gatepost.core.headers import read_header

DATA = Path(__file__).parents[1] / "data" / "dmarc"


def table(file: str) -> Any:
    return yaml.load((DATA / file).read_bytes(), yaml.CSafeLoader)


WALKS, CHECKS, PARSING, OPENDMARC = (
    table(file) for file in ("tree-walk.yml", "verify.yml", "record-parse.yml", "opendmarc-alignment.yml")
)

# mailauth ends the discovery at two records of the author domain; by 4.10 steps 2 and 6 both are discarded and the
# walk goes on, to p=none of the organization. Neither enforces anything.
TWO_RECORDS = "two-records-at-author"


def texts(records: dict[str, Any]) -> dict[tuple[str, str], list[str]]:
    return {
        (name, "TXT"): ["".join(one) if isinstance(one, list) else one for one in values]
        for name, values in records.items()
    }


@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in WALKS])
def test_tree_walk(row: dict[str, Any], make_zone: Callable[..., Any]) -> None:
    zone = make_zone(texts(row["txt"]))
    walked = zone.settle(walk(row["domain"]))
    assert walked.organizational_domain == row["expect"]["organizational_domain"]
    assert [question.name for question in zone.asked] == row["expect"]["queries"]


def message(author: str) -> Any:
    return read_header(f"From: <someone@{author}>\r\n\r\n".encode())


@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in CHECKS])
def test_checks(row: dict[str, Any], make_zone: Callable[..., Any]) -> None:
    zone = make_zone(texts(row["txt"]))
    if row.get("from_domain_exists", True):
        zone.records[row["from_domain"], "MX"] = ("10 mail.invalid",)
    spf_domain, dkim_domain = row["spf_pass_domain"], row["dkim_pass_domain"]
    spf = spf_domain and SpfResult(SpfStatus.PASS, SpfIdentity.MAIL_FROM, spf_domain)
    signatures = [DkimSignatureResult(DkimStatus.PASS, domain=dkim_domain)] if dkim_domain else []
    result = zone.settle(check_dmarc(message(row["from_domain"]), spf, signatures))

    expect = row["expect"]
    if row["id"] == TWO_RECORDS:
        assert (result.status, result.disposition) == (DmarcStatus.FAIL, "none")
        return
    assert result.status == expect["dmarc"]
    assert result.policy == expect["p"]
    if "applied" in expect:
        assert result.disposition == expect["applied"]
    elif result.status is DmarcStatus.FAIL:
        assert result.disposition == expect["p"]
    if "org" in expect:
        assert result.organizational_domain == expect["org"]
    for method in ("spf", "dkim"):
        if f"{method}_aligned" in expect:
            assert (getattr(result, method) is not None) == expect[f"{method}_aligned"]
        if f"{method}_alignment" in expect:
            assert getattr(result, method) == expect[f"{method}_alignment"]


# OpenDMARC 1.4.2 refuses records for these values; RFC 9989 4.8 has such errors ignored.
IGNORED_VALUES = ("adkim=", "aspf=", "rf=", "ri=", "pct=500")


@pytest.mark.parametrize("row", [pytest.param(row, id=row["record"][:60] or "empty") for row in PARSING["records"]])
def test_records(row: dict[str, Any]) -> None:
    text = row["record"]
    record = read_record(text)
    if row["result"] in ("empty", "bad-version"):
        assert record is None
        return
    assert record is not None
    usable = effective(record)
    is_bad = row["result"] == "bad-value" and not any(value in text for value in IGNORED_VALUES)
    # "p=n" was an abbreviation for OpenDMARC; the grammar has none.
    if row["result"] == "no-required-p" or "p=n;" in text or is_bad:
        assert usable is None
    else:
        assert usable is not None
        compare(row.get("expect", {}), usable)


def compare(expect: dict[str, Any], record: Any) -> None:
    for tag in ("p", "sp", "np"):
        if tag in expect:
            assert inherited(record, tag) == expect[tag]
    if "adkim" in expect:
        assert record.strict_dkim == (expect["adkim"] == "s")
    if "aspf" in expect:
        assert record.strict_spf == (expect["aspf"] == "s")
    if "t" in expect:
        assert record.testing == expect["t"]
    if "psd" in expect:
        assert record.psd == expect["psd"]
    if "fo" in expect:
        assert list(record.failure_options) == expect["fo"]
    for tag in ("rua", "ruf"):
        if tag in expect:
            # The size limit is obsolete syntax, which is ignored (4.8); percent signs are not decoded.
            wanted = [one["uri"] if isinstance(one, dict) else one for one in expect[tag]]
            assert list(getattr(record, tag)) == [one.split(" ", 1)[0] for one in wanted]


def inherited(record: Any, tag: str) -> Any:
    policies = {"p": record.policy, "sp": record.subdomain_policy, "np": record.non_existent_policy}
    for one in {"p": ("p",), "sp": ("sp", "p"), "np": ("np", "sp", "p")}[tag]:
        if policies[one] is not None:
            return policies[one]
    return None


def single(tag: str, value: str) -> Any:
    return read_record(f"v={value}" if tag == "v" else f"v=DMARC1; {tag}={value}")


GOOD = [(tag, value) for tag, values in PARSING["single_values"]["good"].items() for value in values]
BAD = [(tag, value) for tag, values in PARSING["single_values"]["bad"].items() for value in values]


@pytest.mark.parametrize(("tag", "value"), GOOD)
def test_good_values(tag: str, value: str) -> None:
    record = single(tag, value)
    fields = {"p": "policy", "sp": "subdomain_policy", "np": "non_existent_policy", "psd": "psd"}
    if tag in fields:
        assert getattr(record, fields[tag]) == value.lower()
    elif tag == "fo":
        # "0" and "1" exclude each other (4.7 fo=), whatever other parsers take.
        assert list(record.failure_options) == (["0"] if {"0", "1"} <= set(value) else value.lower().split(":"))
    elif tag == "rua":
        assert record.rua == ("dmarc-feed@example.com",)
    elif tag != "pct":
        attribute = {"t": "testing", "adkim": "strict_dkim", "aspf": "strict_spf"}[tag]
        assert getattr(record, attribute) == (value.lower() in ("y", "s"))


@pytest.mark.parametrize(("tag", "value"), BAD)
def test_bad_values(tag: str, value: str) -> None:
    record = single(tag, value)
    if tag == "v":
        assert record is None
    elif tag in ("p", "sp"):
        assert effective(record) is None
    else:
        # 4.8: as if the tag were not there. A URI that is none of mailto: is not used.
        default = read_record("v=DMARC1")
        assert default is not None
        assert {name: getattr(record, name) for name in record.__struct_fields__ if name != "has_report_uri"} == {
            name: getattr(default, name) for name in default.__struct_fields__ if name != "has_report_uri"
        }


@pytest.mark.parametrize("row", [pytest.param(row, id=row["from"]) for row in OPENDMARC["from_domain"]])
def test_author_domain(row: dict[str, Any]) -> None:
    """A field that is not of RFC 5322 either has no author for us (permerror), or the one that OpenDMARC finds."""
    fields = read_header(b"From: " + row["from"].encode() + b"\r\n\r\n")
    try:
        domains = author_domains(fields)
    except AuthorError:
        assert not row["rfc5322"]
        return
    assert domains[0] == row["domain"]


@pytest.mark.parametrize("row", OPENDMARC["alignment"], ids=lambda row: row["from_domain"])
def test_alignment(row: dict[str, Any], make_zone: Callable[..., Any]) -> None:
    """OpenDMARC takes names with empty labels; such an author is no author here, so that nothing aligns."""
    author, strict = row["from_domain"], row["mode"] == "strict"
    top = ".".join(author.split(".")[-2:])
    zone = make_zone({(f"_dmarc.{top}", "TXT"): [f"v=DMARC1; p=reject; aspf={'s' if strict else 'r'}"]})
    spf = SpfResult(SpfStatus.PASS, SpfIdentity.MAIL_FROM, row["auth_domain"])
    result = zone.settle(check_dmarc(message(author), spf, []))
    if "" in author.split("."):
        assert result.status is DmarcStatus.PERMERROR
    else:
        assert (result.spf is not None) == row["aligned"]


def test_the_tables_are_whole() -> None:
    counts = [len(one) for one in (WALKS, CHECKS, PARSING["records"], OPENDMARC["from_domain"])]
    assert counts == [22, 50, 27, 13]
