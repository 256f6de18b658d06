"""SPF beyond the suite: limits, identities, and what a stranger's record can make us do."""

from __future__ import annotations

from typing import Any

import pytest

from gatepost.core.authentication.spf import SpfIdentity, SpfResult, SpfStatus, check_helo, check_mail_from
from gatepost.core.authentication.spf.evaluate import MAX_EXPLANATION
from gatepost.core.authentication.spf.record import MAX_RECORD

CLIENT = "192.0.2.1"


def check(
    zone: Any,
    record: str | None = None,
    sender: str = "a@example.org",
    client: str = CLIENT,
    helo: str = "mx.helo.test",
) -> SpfResult:
    if record is not None:
        zone.records["example.org", "TXT"] = (record,)
    result: SpfResult = zone.settle(check_mail_from(client, helo, sender, "us.test", 1_700_000_000))
    return result


def test_the_null_sender_is_postmaster_at_the_helo_name(zone: Any) -> None:
    zone.records["mx.helo.test", "TXT"] = ("v=spf1 exists:%{l}.%{o}.check.test -all",)
    zone.records["postmaster.mx.helo.test.check.test", "A"] = ("127.0.0.1",)
    result = check(zone, sender="")
    assert (result.status, result.identity) == (SpfStatus.PASS, SpfIdentity.MAIL_FROM)
    assert (result.domain, result.sender) == ("mx.helo.test", "postmaster@mx.helo.test")


@pytest.mark.parametrize("helo", ["[192.0.2.1]", "localhost", "a..b", "x" * 64 + ".test", "", "mx .test\r\n"])
def test_a_helo_without_a_domain_gives_none(helo: str, zone: Any) -> None:
    result = zone.settle(check_helo(CLIENT, helo, "us.test", 0))
    assert (result.status, result.identity) == (SpfStatus.NONE, SpfIdentity.HELO)
    assert result.domain.isprintable()
    assert zone.asked == []


def test_an_ipv4_address_in_ipv6_form_is_the_ipv4_address(zone: Any) -> None:
    assert check(zone, "v=spf1 ip4:192.0.2.0/24 -all", client="::ffff:192.0.2.1").status is SpfStatus.PASS
    assert check(zone, "v=spf1 ip6:::ffff:0:0/96 -all", client="::ffff:192.0.2.1").status is SpfStatus.FAIL


def test_a_zone_of_an_address_says_nothing(zone: Any) -> None:
    assert check(zone, "v=spf1 ip6:fe80::/10 -all", client="fe80::1%eth0").status is SpfStatus.PASS


def test_a_client_that_is_no_address_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        check_mail_from("mx.test", "mx.test", "a@example.org", "us.test", 0)


def test_ten_terms_and_not_one_more(zone: Any) -> None:
    zone.records["x.test", "A"] = ("198.51.100.1",)
    ten = "v=spf1" + " a:x.test" * 10
    assert check(zone, f"{ten} -all").status is SpfStatus.FAIL
    over = check(zone, f"{ten} a:x.test -all")
    assert (over.status, over.lookups) == (SpfStatus.PERMERROR, 11)


@pytest.mark.parametrize("link", ["include", "redirect"])
def test_records_that_lead_to_themselves_end(link: str, zone: Any) -> None:
    term = {"include": "include:example.org", "redirect": "redirect=example.org"}[link]
    result = check(zone, f"v=spf1 {term}")
    assert result.status is SpfStatus.PERMERROR
    assert len(zone.asked) == 11


def test_includes_that_branch_are_counted_together(zone: Any) -> None:
    for level in range(20):
        zone.records[f"l{level}.test", "TXT"] = (f"v=spf1 include:l{level + 1}.test include:l{level + 1}.test",)
    zone.records["l20.test", "TXT"] = ("v=spf1 -all",)
    assert check(zone, "v=spf1 include:l0.test").status is SpfStatus.PERMERROR
    assert len(zone.asked) <= 11


def test_the_most_that_one_check_can_ask(zone: Any) -> None:
    """Fails without the limits of 4.6.4: the number of questions would be the record's choice."""
    for number in range(10):
        hosts = [f"{host} h{host}.m{number}.test" for host in range(10)]
        zone.records[f"m{number}.test", "MX"] = tuple(hosts)
        for host in range(10):
            zone.records[f"h{host}.m{number}.test", "A"] = ("198.51.100.1",)
    terms = " ".join(f"mx:m{number}.test" for number in range(10))
    assert check(zone, f"v=spf1 {terms} -all").status is SpfStatus.FAIL
    assert len(zone.asked) == 1 + 10 + 100


def test_two_terms_without_an_answer_and_not_three(zone: Any) -> None:
    zone.records["x.empty.test", "TXT"] = ("",)
    assert check(zone, "v=spf1 a:none.test exists:empty.test ip4:192.0.2.1 -all").status is SpfStatus.PASS
    result = check(zone, "v=spf1 a:none.test exists:empty.test mx:x.empty.test ip4:192.0.2.1 -all")
    assert (result.status, result.void_lookups) == (SpfStatus.PERMERROR, 3)


def test_an_ipv6_client_is_no_void_lookup_for_each_mail_host(zone: Any) -> None:
    """4.6.4 counts terms: hosts of one MX that have no IPv6 address are one answer that was found."""
    zone.records["example.org", "MX"] = tuple(f"{number} h{number}.test" for number in range(5))
    for number in range(5):
        zone.records[f"h{number}.test", "A"] = ("192.0.2.1",)
    assert check(zone, "v=spf1 mx ~all", client="2001:db8::1").status is SpfStatus.SOFTFAIL


def test_the_null_mx_has_no_hosts(zone: Any) -> None:
    zone.records["example.org", "MX"] = ("0 .",)
    assert check(zone, "v=spf1 mx -all").status is SpfStatus.FAIL
    assert all(question.kind in ("TXT", "MX") for question in zone.asked)


def test_mail_hosts_and_names_of_a_client_are_asked_at_once(zone: Any) -> None:
    zone.records["example.org", "MX"] = tuple(f"{number} h{number}.test" for number in range(10))
    zone.records["1.2.0.192.in-addr.arpa", "PTR"] = tuple(f"p{number}.test" for number in range(15))
    check(zone, "v=spf1 mx ptr ptr:other.test -all")
    assert zone.rounds == [1, 1, 10, 1, 10]


def test_a_name_that_cannot_be_is_not_asked_for(zone: Any) -> None:
    result = check(zone, f"v=spf1 a:{'x' * 64}.test exists:a..test -all")
    assert (result.status, result.void_lookups) == (SpfStatus.FAIL, 2)
    assert len(zone.asked) == 1


def test_a_local_part_beyond_ascii_matches_nothing(zone: Any) -> None:
    """RFC 8616 4; and it is not counted as a question without an answer, since none was asked."""
    result = check(
        zone, "v=spf1 exists:%{l}.a.test exists:%{s}.b.test exists:%{l}.c.test +all", sender="ä@example.org"
    )
    assert (result.status, result.void_lookups) == (SpfStatus.PASS, 0)
    assert result.sender == "?@example.org"


def test_an_internationalized_domain_is_asked_for_in_a_labels(zone: Any) -> None:
    zone.records["xn--mnchen-3ya.example", "TXT"] = ("v=spf1 +all",)
    result = check(zone, sender="a@MÜNCHEN.example")
    assert (result.status, result.domain) == (SpfStatus.PASS, "xn--mnchen-3ya.example")


@pytest.mark.parametrize(
    ("text", "explanation"),
    [
        ("%{i} is not one of %{d}'s mail servers (%{c}, %{r}, %{t})", None),
        ("550 5.7.1\r\nInjected: %{l}", ""),
        ("café", ""),
        ("%{x}", ""),
        ("x" * 5000, "x" * MAX_EXPLANATION),
        ("%{s}" * 900, None),
    ],
)
def test_explanations_are_data(text: str, explanation: str | None, zone: Any) -> None:
    zone.records["why.test", "TXT"] = (text,)
    result = check(zone, "v=spf1 -all exp=why.test", sender='"a\x07b"@example.org')
    assert result.status is SpfStatus.FAIL
    assert result.explanation.isascii()
    assert result.explanation == "" or result.explanation.isprintable()
    assert len(result.explanation) <= MAX_EXPLANATION
    if explanation is not None:
        assert result.explanation == explanation
    elif text.startswith("%{i}"):
        assert result.explanation == (
            "192.0.2.1 is not one of example.org's mail servers (192.0.2.1, us.test, 1700000000)"
        )


def test_an_explanation_is_asked_for_only_after_fail(zone: Any) -> None:
    zone.records["why.test", "TXT"] = ("because",)
    assert check(zone, "v=spf1 ~all exp=why.test").explanation == ""
    assert len(zone.asked) == 1
    assert check(zone, "v=spf1 -all exp=why.test").explanation == "because"
    zone.failing.add(("why.test", "TXT"))
    failed = check(zone, "v=spf1 -all exp=why.test")
    assert (failed.status, failed.explanation) == (SpfStatus.FAIL, "")


def test_a_record_of_absurd_length_is_an_error(zone: Any) -> None:
    result = check(zone, "v=spf1 " + "ip4:192.0.2.1 " * (MAX_RECORD // 10))
    assert (result.status, result.reason) == (SpfStatus.PERMERROR, "the record is too long")


def test_reasons_are_safe_to_log(zone: Any) -> None:
    result = check(zone, "v=spf1 \x1b[31mred\x07" + "x" * 300)
    assert result.status is SpfStatus.PERMERROR
    assert result.reason.isprintable()
    assert len(result.reason) < 120


@pytest.mark.parametrize("kind", ["A", "MX", "TXT"])
def test_failures_are_temporary(kind: str, zone: Any) -> None:
    zone.failing.update({("a.test", kind), ("m.test", kind), ("i.test", kind)})
    terms = {"A": "a:a.test", "MX": "mx:m.test", "TXT": "include:i.test"}
    assert check(zone, f"v=spf1 {terms[kind]} +all").status is SpfStatus.TEMPERROR


def test_a_failing_reverse_lookup_is_no_error(zone: Any) -> None:
    """5.5: the mechanism fails to match."""
    zone.failing.add(("1.2.0.192.in-addr.arpa", "PTR"))
    assert check(zone, "v=spf1 ptr -all").status is SpfStatus.FAIL
