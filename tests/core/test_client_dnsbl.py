"""Lists in the DNS: return codes, weights and failures, over the answers of public lists in tests/data/dnsbl."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.checks.dnsbl import (
    LIST_AWAY,
    CodeError,
    Codes,
    DnsblList,
    DnsblPolicy,
    DnsblTable,
    Subject,
    evaluate,
    failed,
    is_error,
    query_name,
)
from gatepost.core.checks.verdict import Verdict
from gatepost.core.client_facts import Listing, Outcome
from gatepost.core.manifest.actions import Action, OnError

DATA = yaml.safe_load((Path(__file__).parent.parent / "data/dnsbl/return-codes.yml").read_text("utf-8"))
CLIENT = "192.0.2.99"
# What an administrator writes for the lists of the data.
CODES = {
    "zen.spamhaus.org": ("127.0.0.2-127.0.0.11",),
    "dbl.spamhaus.org": ("127.0.1.[2..99]", "127.0.1.[102..106]"),
    "multi.surbl.org": ("127.0.0.&216",),
    "multi.uribl.com": ("127.0.0.&14",),
    "list.dnswl.org": ("127.0.*.[1..3]",),
}


def listing(answer: Any, place: int = 0) -> Listing:
    if answer == "NXDOMAIN":
        return Listing(place, CLIENT, Outcome.ABSENT)
    if answer == "SERVFAIL":
        return Listing(place, CLIENT, Outcome.FAILED)
    return Listing(place, CLIENT, Outcome.FOUND, tuple(answer))


def judged(lists: tuple[DnsblList, ...], answers: list[Any], threshold: int = 1) -> tuple[Verdict, ...]:
    table = DnsblTable(DnsblPolicy(lists, threshold))
    return evaluate(table, [listing(answer, place) for place, answer in enumerate(answers)])


@pytest.mark.requirement("S4-13")
@pytest.mark.parametrize("own_codes", [True, False], ids=["codes", "any code"])
@pytest.mark.parametrize(("zone", "answer", "listed"), DATA["tests"])
def test_public_lists(zone: str, answer: Any, listed: Any, own_codes: bool) -> None:
    """Fails without telling error codes, answers outside 127/8 and dead lists from listings."""
    codes = CODES[zone] if own_codes else ()
    verdicts = judged((DnsblList(zone, codes),), [answer])
    assert bool(verdicts) is bool(listed)
    assert all(verdict.action is Action.REJECT for verdict in verdicts)


def test_every_error_code_of_the_data_is_one() -> None:
    errors = [
        str(code["code"])
        for zone in DATA["zones"]
        for code in zone["codes"]
        if code["kind"] == "error" and "code" in code
    ]
    assert len(errors) >= 5
    for code in errors:
        assert is_error(code.replace("C", "0")), code


@pytest.mark.parametrize(("example"), DATA["query_names"], ids=lambda one: one["zone"])
def test_query_names(example: dict[str, str]) -> None:
    assert query_name(example["address"], example["zone"]) == example["name"]
    assert query_name("far.example", "dbl.example") == "far.example.dbl.example"


A, B = DnsblList("a.example"), DnsblList("b.example", weight=2, action=Action.TAG)
GOOD = DnsblList("good.example", weight=-3)
IN, OUT, DEAD = ["127.0.0.2"], "NXDOMAIN", "SERVFAIL"
# lists, answers, threshold -> action, score
WEIGHTS = [
    ((A, B), [IN, OUT], 1, Action.REJECT, 1),
    ((A, B), [OUT, IN], 1, Action.TAG, 2),
    ((A, B), [IN, IN], 3, Action.REJECT, 3),
    ((A, B), [IN, OUT], 3, None, 0),
    ((A, B, GOOD), [IN, IN, IN], 1, None, 0),
    ((A, B, GOOD), [IN, IN, DEAD], 1, Action.REJECT, 3),
    ((A, B), [DEAD, DEAD], 1, None, 0),
    ((A, B), [["127.255.255.254"], OUT], 1, None, 0),
    ((A, B), [["127.255.255.254", "127.0.0.4"], OUT], 1, Action.REJECT, 1),
    ((GOOD,), [IN], 1, None, 0),
]


@pytest.mark.requirement("S4-10")
@pytest.mark.parametrize(("lists", "answers", "threshold", "action", "score"), WEIGHTS)
def test_weights(
    lists: tuple[DnsblList, ...], answers: list[Any], threshold: int, action: Action | None, score: int
) -> None:
    """Several lists at once, each with a weight. Fails without lists of the good that outweigh."""
    verdicts = judged(lists, answers, threshold)
    assert [(one.action, one.score) for one in verdicts] == ([] if action is None else [(action, score)])


@pytest.mark.requirement("S4-11")
def test_a_list_has_its_own_code_and_text() -> None:
    """Fails without a return code and a text of each list."""
    one = DnsblList("dnsbl.example.com", ("127.0.0.2",), text="RBL BLOCK $subject by $zone ($code)")
    (verdict,) = judged((one,), [["127.0.0.2"]])
    assert verdict.answer.encode("ID") == (
        b"550 5.7.1 RBL BLOCK 192.0.2.99 by dnsbl.example.com (127.0.0.2) (dnsbl) ID\r\n"
    )
    assert verdict.facts == {"subject": CLIENT, "dnsbl.example.com": "127.0.0.2"}
    assert judged((one,), [["127.0.0.3"]]) == ()


@pytest.mark.requirement("S4-12")
@pytest.mark.parametrize("answer", [DEAD, ["127.255.255.255"], ["203.0.113.80"]], ids=["dead", "error", "parked"])
def test_a_failed_list_defers_where_the_policy_says_so(answer: Any) -> None:
    """Fails without onError of each list; by default a list that is down is passed over."""
    strict = DnsblList("a.example", on_error=OnError.TEMPFAIL)
    (verdict,) = judged((strict, B), [answer, OUT])
    assert (verdict.action, verdict.reply) == (Action.DEFER, LIST_AWAY)
    for lenient in (OnError.IGNORE, OnError.ACCEPT):
        assert judged((DnsblList("a.example", on_error=lenient), B), [answer, OUT]) == ()
    # What is known is enough to refuse: no need to wait for the one that is away.
    (verdict,) = judged((strict, DnsblList("c.example")), [answer, IN])
    assert verdict.action is Action.REJECT


@pytest.mark.parametrize(
    ("texts", "matching", "others"),
    [
        (("127.0.0.2",), ["127.0.0.2"], ["127.0.0.3", "127.0.1.2"]),
        (("127.0.0.2-127.0.0.11",), ["127.0.0.2", "127.0.0.11"], ["127.0.0.12"]),
        (("127.0.*.[1..3]",), ["127.0.9.1", "127.0.5.3"], ["127.0.9.0", "127.0.9.4"]),
        (("127.0.0.&12",), ["127.0.0.4", "127.0.0.8", "127.0.0.14"], ["127.0.0.2", "127.0.0.16"]),
        ((), ["127.0.0.2", "127.3.2.9"], ["127.0.0.1", "127.255.255.254", "10.0.0.1", "nonsense", "::1"]),
        (("127.0.0.1", "127.255.255.254", "*.*.*.*"), ["127.0.0.2"], ["127.0.0.1", "127.255.255.254", "192.0.2.1"]),
    ],
)
def test_codes(texts: tuple[str, ...], matching: list[str], others: list[str]) -> None:
    codes = Codes(texts)
    assert [code for code in matching if not codes.match(code)] == []
    assert [code for code in others if codes.match(code)] == []


@pytest.mark.parametrize(
    "text",
    ["", "127", "127.0.0", "127.0.0.2.1", "127.0.0.256", "127.0.0.&0", "127.0.0.&256", "127.0.0.[5..2]",
     "127.0.0.9-127.0.0.2", "127.0.0.2-", "zen", "127.0.0.2 ", "127.0.0.٢"],
)  # fmt: skip
def test_codes_that_are_none(text: str) -> None:
    with pytest.raises(CodeError):
        Codes((text,))


@given(st.text(alphabet="0127.&*[]-. ", max_size=24), st.ip_addresses(v=4).map(str))
def test_any_text_is_a_code_or_an_error(text: str, answer: str) -> None:
    with contextlib.suppress(CodeError):
        matched = Codes((text,)).match(answer)
        assert not matched or not is_error(answer)


def test_what_counts_as_failed() -> None:
    assert failed(listing(DEAD))
    assert failed(listing(["127.0.0.1"]))
    assert not failed(listing(IN))
    assert not failed(listing(OUT))
    assert not failed(Listing(0, CLIENT, Outcome.NOT_ASKED))


def test_lists_by_subject() -> None:
    lists = (A, DnsblList("h.example", subject=Subject.HELO_NAME), B)
    assert DnsblTable(DnsblPolicy(lists)).by_subject == {
        Subject.CLIENT_ADDRESS: (0, 2),
        Subject.HELO_NAME: (1,),
        Subject.SENDER_DOMAIN: (),
    }
