"""DMARC beyond the tables: authors, missing answers, and bounds."""

from __future__ import annotations

from typing import Any

import pytest

from gatepost.core.authentication.dkim import DkimSignatureResult, DkimStatus
from gatepost.core.authentication.dmarc import (
    Alignment,
    AuthorError,
    DmarcPolicy,
    DmarcResult,
    DmarcStatus,
    author_domains,
    check_dmarc,
)
from gatepost.core.authentication.dmarc.author import MAX_AUTHOR_DOMAINS
from gatepost.core.authentication.dmarc.evaluate import MAX_IDENTIFIERS
from gatepost.core.authentication.dmarc.record import MAX_RECORD, read_record
from gatepost.core.authentication.spf import SpfIdentity, SpfResult, SpfStatus
from gatepost.core.headers import read_header


def policy(zone: Any, domain: str, record: str) -> None:
    zone.records[f"_dmarc.{domain}", "TXT"] = (f"v=DMARC1; {record}",)


def spf(
    domain: str, status: SpfStatus = SpfStatus.PASS, identity: SpfIdentity = SpfIdentity.MAIL_FROM
) -> SpfResult:
    return SpfResult(status, identity, domain)


def dkim(domain: str, status: DkimStatus = DkimStatus.PASS) -> DkimSignatureResult:
    return DkimSignatureResult(status, domain=domain)


def check(
    zone: Any, author: str, identity: SpfResult | None = None, *signatures: DkimSignatureResult
) -> DmarcResult:
    fields = read_header(f"From: {author}\r\n\r\n".encode())
    result: DmarcResult = zone.settle(check_dmarc(fields, identity, signatures))
    return result


@pytest.mark.parametrize(
    ("value", "domains"),
    [
        ("a@example.org", ("example.org",)),
        ("<a@Example.ORG>", ("example.org",)),
        ("A <a@example.org>, B <b@example.org>", ("example.org",)),
        ("A <a@example.org>,, B <b@example.net>,", ("example.org", "example.net")),
        ("Team: a@example.org, B <b@example.net>;", ("example.org", "example.net")),
        ("Nobody:;, a@example.org", ("example.org",)),
        ('"a@evil.test" <a@example.org>', ("example.org",)),
        ("a@bank.test <a@example.org>", ("example.org",)),
        ("Doe, Jane <a@example.org>", ("example.org",)),
        ("[Ticket 5] Jane D. <a@example.org>", ("example.org",)),
        ("=?utf-8?q?J=C3=B6rg?= <a@example.org>", ("example.org",)),
        ("Jörg <jörg@münchen.example>", ("xn--mnchen-3ya.example",)),
        ("(comment (nested \\) ) ) a(x)@(y)example.org (z)", ("example.org",)),
        ('"quoted \\" local"@example.org', ("example.org",)),
        ("a@example.org\r\n\t(folded)", ("example.org",)),
        ("a@_under.example.org", ("_under.example.org",)),
    ],
)
def test_authors(value: str, domains: tuple[str, ...]) -> None:
    assert author_domains(read_header(f"From: {value}\r\n\r\n".encode())) == domains


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nobody",
        "undisclosed:;",
        "a@",
        "@example.org",
        "<>",
        "a@b@example.org",
        "a@example.org b@example.net",
        "<a@example.org> <b@example.net>",
        "<a@example.org",
        "a@example.org>",
        "a@[192.0.2.1]",
        "a@exa mple.org",
        "a@example..org",
        "a@example.org; b@example.net",
        "a:b:c@example.org;",
        "Team: a@example.org",
        '"open a@example.org',
        "(open a@example.org",
        "a@example.org\x00",
        "a@ex\udcffample.org",
    ],
)
def test_no_author_can_be_read(value: str, zone: Any) -> None:
    """Fails without the permerror: none would let such a message through as one without a policy."""
    fields = read_header(b"From: " + value.encode("utf-8", "surrogateescape") + b"\r\n\r\n")
    with pytest.raises(AuthorError):
        author_domains(fields)
    result = zone.settle(check_dmarc(fields, None, ()))
    assert (result.status, zone.asked) == (DmarcStatus.PERMERROR, [])
    assert result.reason


def test_a_display_name_in_another_character_set_does_no_harm() -> None:
    assert author_domains(read_header(b"From: J\xf6rg <a@example.org>\r\n\r\n")) == ("example.org",)


@pytest.mark.parametrize("header", [b"To: a@example.org\r\n", b"From: a@example.org\r\nFROM : b@example.org\r\n"])
def test_one_from_field(header: bytes, zone: Any) -> None:
    assert zone.settle(check_dmarc(read_header(header), None, ())).status is DmarcStatus.PERMERROR


def test_the_strictest_failure_of_several_authors_counts(zone: Any) -> None:
    policy(zone, "mild.test", "p=quarantine")
    policy(zone, "strict.test", "p=reject")
    policy(zone, "fine.test", "p=reject")
    result = check(zone, "a@mild.test, b@strict.test, c@fine.test, d@none.test", spf("fine.test"))
    assert (result.status, result.author_domain) == (DmarcStatus.FAIL, "strict.test")
    assert result.disposition is DmarcPolicy.REJECT
    assert result.other_authors == ("mild.test", "fine.test", "none.test")
    assert check(zone, "c@fine.test, d@none.test", spf("fine.test")).status is DmarcStatus.NONE


def test_too_many_authors_are_not_judged(zone: Any) -> None:
    authors = ", ".join(f"a@{number}.test" for number in range(MAX_AUTHOR_DOMAINS + 1))
    result = check(zone, authors)
    assert (result.status, zone.asked) == (DmarcStatus.PERMERROR, [])


def test_only_mail_from_counts(zone: Any) -> None:
    policy(zone, "example.org", "p=reject")
    assert check(zone, "a@example.org", spf("example.org", identity=SpfIdentity.HELO)).status is DmarcStatus.FAIL
    assert check(zone, "a@example.org", spf("example.org")).status is DmarcStatus.PASS


@pytest.mark.parametrize("status", [one for one in SpfStatus if one is not SpfStatus.PASS])
def test_nothing_but_a_pass_of_spf_counts(status: SpfStatus, zone: Any) -> None:
    policy(zone, "example.org", "p=reject")
    result = check(zone, "a@example.org", spf("example.org", status))
    expected = DmarcStatus.TEMPERROR if status is SpfStatus.TEMPERROR else DmarcStatus.FAIL
    assert result.status is expected


@pytest.mark.parametrize("status", [one for one in DkimStatus if one is not DkimStatus.PASS])
def test_nothing_but_a_pass_of_dkim_counts(status: DkimStatus, zone: Any) -> None:
    policy(zone, "example.org", "p=reject")
    result = check(zone, "a@example.org", None, dkim("example.org", status))
    expected = DmarcStatus.TEMPERROR if status is DkimStatus.TEMPERROR else DmarcStatus.FAIL
    assert result.status is expected
    # What could not have aligned is no reason to wait.
    other = check(zone, "a@example.org", None, dkim("example.net", status))
    assert other.status is DmarcStatus.FAIL


def test_one_aligned_pass_is_enough(zone: Any) -> None:
    policy(zone, "example.org", "p=reject; adkim=r; aspf=s")
    result = check(
        zone,
        "a@mail.example.org",
        spf("bounce.example.org"),
        dkim("list.test"),
        dkim("example.org"),
        dkim("mail.example.org", DkimStatus.FAIL),
    )
    assert (result.status, result.dkim, result.spf) == (DmarcStatus.PASS, Alignment.RELAXED, None)
    assert (result.policy, result.disposition) == (DmarcPolicy.REJECT, DmarcPolicy.NONE)


@pytest.mark.parametrize("failing", ["_dmarc.mail.example.org", "_dmarc.example.org"])
def test_no_answer_for_the_policy(failing: str, zone: Any) -> None:
    policy(zone, "example.org", "p=reject")
    zone.failing.add((failing, "TXT"))
    assert check(zone, "a@mail.example.org", spf("mail.example.org")).status is DmarcStatus.TEMPERROR


def test_no_answer_higher_up_does_not_spoil_what_is_known(zone: Any) -> None:
    policy(zone, "example.org", "p=reject")
    zone.failing.add(("_dmarc.org", "TXT"))
    assert check(zone, "a@example.org", spf("example.org")).status is DmarcStatus.PASS
    assert check(zone, "a@example.org", spf("mail.example.org")).status is DmarcStatus.TEMPERROR
    assert check(zone, "a@example.org", spf("example.net")).status is DmarcStatus.FAIL


def test_no_answer_between_leaves_the_organization_unknown(zone: Any) -> None:
    """What was found below may not be the organization's, and an identifier's end says nothing of the author's."""
    policy(zone, "b.example.org", "p=reject")
    zone.failing.add(("_dmarc.example.org", "TXT"))
    assert check(zone, "a@a.b.example.org", spf("example.net")).status is DmarcStatus.TEMPERROR
    policy(zone, "sub.b.example.org", "p=reject; psd=n")
    assert check(zone, "a@b.example.org", spf("sub.b.example.org")).status is DmarcStatus.TEMPERROR


def test_no_answer_for_existence(zone: Any) -> None:
    policy(zone, "example.org", "p=none; np=reject")
    zone.failing.add(("ghost.example.org", "A"))
    assert check(zone, "a@ghost.example.org").status is DmarcStatus.TEMPERROR


def test_existence_is_asked_only_where_it_matters(zone: Any) -> None:
    policy(zone, "example.org", "p=reject; sp=quarantine; np=quarantine")
    assert check(zone, "a@ghost.example.org").policy is DmarcPolicy.QUARANTINE
    assert all(question.kind == "TXT" for question in zone.asked)


def test_the_suffix_speaks_where_the_organization_is_silent(zone: Any) -> None:
    policy(zone, "bank.test", "p=none; sp=reject; psd=y")
    result = check(zone, "a@new.bank.test")
    assert (result.policy, result.record_domain) == (DmarcPolicy.REJECT, "bank.test")
    assert result.organizational_domain == "new.bank.test"


def test_the_number_of_questions_is_bounded(zone: Any) -> None:
    """Fails without the limits: each signature and each label would cost questions."""
    deep = ".".join("abcdefghijklmnopqrstuvwxyz") + ".test"
    policy(zone, deep, "p=reject")
    signatures = [dkim(f"s{number}.{deep}") for number in range(500)]
    check(zone, f"a@{deep}", spf(f"x.{deep}"), *signatures)
    assert len(zone.asked) <= 8 * (1 + 1 + MAX_IDENTIFIERS)
    # Walks for alignment go side by side.
    assert len(zone.rounds) <= 8 + 8


def test_names_of_other_tops_are_not_walked(zone: Any) -> None:
    policy(zone, "example.org", "p=reject")
    assert check(zone, "a@example.org", spf("example.net"), dkim("mail.test")).status is DmarcStatus.FAIL
    assert {question.name for question in zone.asked} == {"_dmarc.example.org", "_dmarc.org"}


def test_a_record_that_is_too_long_is_none() -> None:
    assert read_record("v=DMARC1; p=reject; rua=" + "x" * MAX_RECORD) is None


def test_where_reports_go(zone: Any) -> None:
    policy(zone, "example.org", "p=none; rua=mailto:r@example.org!10m,https://r.test/, mailto:s@r.test")
    assert check(zone, "a@example.org").reporting == ("r@example.org", "s@r.test")


def test_a_tag_that_stands_twice_counts_once() -> None:
    record = read_record("v=DMARC1; p=reject; p=none")
    assert record is not None
    assert record.policy is DmarcPolicy.REJECT
