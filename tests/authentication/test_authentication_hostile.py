"""Every parser over anything at all: no error but its own, and work that grows no faster than the input.

Growth is shown by counting executed lines at two sizes; and for what runs in C by sizes at which anything but one
pass would not end within a test's time: a megabyte squared is a million million steps.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.authentication.arc import ArcVerification
from gatepost.core.authentication.arc.chain import newest_seal_fails
from gatepost.core.authentication.dkim import BodyHash, BodyHasher, DkimVerification, hash_body
from gatepost.core.authentication.dkim.canonical_header import (
    Canonical,
    CanonicalHeader,
    canonical_field,
    canonical_signature,
)
from gatepost.core.authentication.dkim.key_record import KeyRecordError, choose_record, public_key
from gatepost.core.authentication.dmarc import AuthorError, DmarcResult, author_domains, check_dmarc
from gatepost.core.authentication.dmarc.author import from_domains
from gatepost.core.authentication.dmarc.record import read_record as read_policy
from gatepost.core.authentication.names import dns_name, plain
from gatepost.core.authentication.questions import FAILED, NO_SUCH_DOMAIN, Asking, DnsAnswer, Known, Question
from gatepost.core.authentication.results_field import split_results, without_forged
from gatepost.core.authentication.spf import check_mail_from
from gatepost.core.authentication.spf.macros import (
    MacroError,
    MacroValues,
    expand,
    expand_domain,
    read_domain_spec,
    read_macro_string,
)
from gatepost.core.authentication.spf.record import SpfSyntaxError, is_record, read_record
from gatepost.core.authentication.tag_list import TagListError, base64_octets, field_text, read_tags
from gatepost.core.headers import field_of, read_header

T = TypeVar("T")


def settle(asking: Asking[T], answer: Callable[[Question], DnsAnswer]) -> tuple[T, int]:
    """Run an evaluation: (its result, how many questions it had)."""
    asked = 0
    try:
        questions = next(asking)
        while True:
            asked += len(questions)
            questions = asking.send(tuple(map(answer, questions)))
    except StopIteration as stop:
        return stop.value, asked


FIELDS = ["DKIM-Signature:", "ARC-Seal:", "ARC-Message-Signature:", "ARC-Authentication-Results:", "From:", "X:"]
TAGS = [
    "v=1",
    "i=1",
    "i=2",
    "a=rsa-sha256",
    "a=ed25519-sha256",
    "b=AAAA",
    "bh=AA==",
    "d=example.org",
    "s=s",
    "h=from:to",
]
TAGS += ["cv=none", "cv=pass", "cv=fail", "l=5", "c=simple", "t=1", "x=2", "q=dns/txt", "="]
NOISE = [
    "\r\n",
    "\r\n ",
    ";",
    "; ",
    "(",
    ")",
    '"',
    "\\",
    "<a@b.test>",
    "a@b.test",
    ",",
    ":",
    "\x00",
    "ä",
    "\udcff",
    "\r",
    "\n",
]
HEADERS = st.lists(
    st.one_of(
        st.sampled_from([f"\r\n{field} " for field in FIELDS]), st.sampled_from(TAGS), st.sampled_from(NOISE)
    ),
    max_size=60,
).map(lambda parts: "".join(parts).encode("utf-8", "surrogateescape"))
WORDS = (
    "a mx ptr all include: exists: redirect= exp= ip4: ip6: 1.2.3.4 ::1 /24 //64 / : - ~ ? = x.test %{d} %{l3r-}"
)
WORDS += " %{ %% %_ "
WORDS += (
    "v=DMARC1 v=DKIM1 p=reject sp= rua=mailto:a@b.test ! 10m , ; k=rsa k=ed25519 p=AAAA t=s h=sha256 99 ä \udcff"
)
RECORDS = st.lists(st.sampled_from([*WORDS.split(" "), " "]), max_size=30).map("".join)
VALUES = MacroValues(
    client=ipaddress.ip_address("2001:db8::1"),
    helo="helo.test",
    local="local-part",
    sender_domain="example.org",
    domain="example.org",
    receiver="us.test",
    now=1,
)


@given(HEADERS, RECORDS)
def test_any_message_gives_results(header: bytes, record: str) -> None:
    fields = read_header(header)
    dkim, arc = DkimVerification(fields), ArcVerification(fields)
    bodies = hash_body(b"body", dkim.wanted | arc.wanted)
    known = DnsAnswer(Known.EXISTS, (record,))
    for answer in (known, NO_SUCH_DOMAIN, FAILED):
        signatures, _ = settle(dkim.verify(bodies, 1), lambda _, answer=answer: answer)  # type: ignore[misc]
        settle(arc.verify(bodies), lambda _, answer=answer: answer)  # type: ignore[misc]
        result, asked = settle(check_dmarc(fields, None, signatures), lambda _, answer=answer: answer)  # type: ignore[misc]
        assert isinstance(result, DmarcResult)
        assert asked <= 200
        assert all(one.reason.isprintable() for one in (*signatures, result))
    newest_seal_fails(fields)
    without_forged(header, {"mx.test"})


@given(RECORDS, RECORDS, st.sampled_from(["192.0.2.1", "2001:db8::1"]))
def test_any_record_gives_an_spf_result(record: str, other: str, client: str) -> None:
    def answer(question: Question) -> DnsAnswer:
        texts = {
            "TXT": f"v=spf1 {record if question.name == 'x.org' else other}",
            "MX": "10 x.test",
            "PTR": "x.test",
        }
        return DnsAnswer(Known.EXISTS, (texts.get(question.kind, "192.0.2.9"),))

    result, asked = settle(check_mail_from(client, "helo.test", "a@x.org", "us.test", 0), answer)
    assert asked <= 140
    assert result.lookups <= 11
    assert all(text.isprintable() for text in (result.reason, result.explanation, result.mechanism, result.sender))


@given(st.one_of(RECORDS, st.text(max_size=200)))
def test_any_text_is_a_record_or_none(text: str) -> None:
    read_policy(text)
    read_policy(f"v=DMARC1; {text}")
    with contextlib.suppress(KeyRecordError):
        public_key(choose_record((text,)), "rsa", "sha256", 1024)
    for reader in (read_macro_string, read_domain_spec):
        try:
            parts = reader(text)
        except MacroError:
            continue
        expand(parts, VALUES)
        expand_domain(parts, VALUES)
    if is_record(text):
        with pytest.raises(SpfSyntaxError):
            read_record(text + " \x00")


@given(st.binary(max_size=200))
def test_any_octets_are_tags_a_name_or_nothing(octets: bytes) -> None:
    text = field_text(octets)
    with contextlib.suppress(TagListError):
        assert all(name.isascii() for name in read_tags(text))
    base64_octets(text)
    name = dns_name(text)
    assert name is None or name.isascii()
    assert plain(text).isprintable()
    with contextlib.suppress(AuthorError):
        author_domains(read_header(b"From: " + octets))


@given(st.binary(max_size=80))
def test_base64_is_what_the_library_reads(octets: bytes) -> None:
    text = base64.b64encode(octets).decode()
    assert base64_octets(" ".join(text)) == (octets or None)
    assert base64_octets(text.rstrip("=")) == (octets or None)


def lines_of(run: Callable[[], Any]) -> int:
    """Count the lines of our code that a call executes."""
    count = 0

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return local

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        return local if "gatepost" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


def header(size: int, one: bytes) -> bytes:
    return one * (size // len(one))


def verify(message: bytes) -> None:
    fields = read_header(message)
    dkim, arc = DkimVerification(fields), ArcVerification(fields)
    bodies = hash_body(b"", dkim.wanted | arc.wanted)
    answer = DnsAnswer(Known.EXISTS, ("v=DKIM1; k=ed25519; p=" + "A" * 43,))
    settle(dkim.verify(bodies, 0), lambda _: answer)
    settle(arc.verify(bodies), lambda _: answer)
    settle(check_dmarc(fields, None, ()), lambda _: answer)


def authors(text: str) -> None:
    with contextlib.suppress(AuthorError):
        from_domains(text)


def refused(error: type[Exception], reader: Callable[[str], Any], text: str) -> None:
    with pytest.raises(error):
        reader(text)


SIGNATURE = b"DKIM-Signature: v=1; a=ed25519-sha256; d=a.test; s=s; b=AAAA; bh=AAAA; h="


def piecewise(piece: bytes, size: int) -> None:
    hasher = BodyHasher({BodyHash(how, limit) for how in Canonical for limit in (None, 3, 5)})
    for at in range(size):
        hasher.update(piece[at % len(piece) : at % len(piece) + 1])
    hasher.finish()


WORK: dict[str, Callable[[int], Any]] = {
    "many fields": lambda n: verify(header(n, b"A: 1\r\n")),
    "many folds": lambda n: verify(b"A: 1\r\n" + header(n, b" x\r\n")),
    "lines that are no field": lambda n: verify(header(n, b"x\r\n")),
    "many signatures": lambda n: verify(header(n, SIGNATURE + b"from\r\n")),
    "many signed names": lambda n: verify(SIGNATURE + header(n, b"from:") + b"x\r\n"),
    "a name signed often and there often": lambda n: verify(
        SIGNATURE + b"from:" + header(n, b"x:") + b"x\r\n" + header(n, b"X:\r\n")
    ),
    "many tags": lambda n: verify(SIGNATURE + b"from" + b"".join(b";t%d=1" % at for at in range(n // 8)) + b"\r\n"),
    "many seals": lambda n: verify(header(n, b"ARC-Seal: i=1; cv=none\r\n")),
    "many authors": lambda n: verify(b"From: " + header(n, b"a@b.test,") + b"\r\n"),
    "nested comments": lambda n: authors("(" * n + ")" * n),
    "open brackets": lambda n: authors("<" * n),
    "open groups": lambda n: authors("a:" * n),
    "results with comments": lambda n: split_results("(" * n + "a" + ")" * n + ";" * n),
    "results with escapes": lambda n: split_results('"' + "\\" * n),
    "forged results": lambda n: without_forged(header(n, b"Authentication-Results: mx.test; a\r\n"), {"mx.test"}),
    "macros": lambda n: expand_domain(read_macro_string("%{s}." * n), VALUES),
    "key records": lambda n: settle(iter_keys(n), lambda _: FAILED),
    "empty lines one by one": lambda n: piecewise(b"\r\n", n),
    "white space one by one": lambda n: piecewise(b" ", n),
    "carriage returns one by one": lambda n: piecewise(b"\r", n),
}


def iter_keys(count: int) -> Asking[None]:
    try:
        choose_record(("v=DKIM1; p=",) * count)
    except KeyRecordError:
        return
    yield ()


@pytest.mark.parametrize("name", WORK)
def test_lines_executed_grow_with_the_size(name: str) -> None:
    small, large = lines_of(lambda: WORK[name](500)), lines_of(lambda: WORK[name](4000))
    assert large <= 10 * small  # twice the work for twice the size would be 8, each for each 64


MEGABYTE = 1 << 20
BIG: dict[str, Callable[[], Any]] = {
    "spaces in a field": lambda: canonical_field(
        field_of(b"A:" + b" \t" * MEGABYTE + b"x" + b"\t" * MEGABYTE), Canonical.RELAXED
    ),
    "folds in a field": lambda: canonical_field(
        field_of(b"A:" + b"\r\n \r\n\t" * (MEGABYTE // 4) + b"x"), Canonical.RELAXED
    ),
    "semicolons in a signature": lambda: canonical_signature(
        field_of(b"A:" + b"; b =" * (MEGABYTE // 4)), Canonical.SIMPLE
    ),
    "one field over and over": lambda: CanonicalHeader(read_header(b"A: b\r\n" * 100_000)).signed(
        ["a"] * 200_000, Canonical.RELAXED
    ),
    "a header of one megabyte": lambda: verify(
        b"From: a@b.test\r\n" + (SIGNATURE + b"from" * 20 + b"\r\n") * 9_000
    ),
    "spaces in tags": lambda: refused(TagListError, read_tags, "a" + " " * MEGABYTE + "=\x00" + "\t" * MEGABYTE),
    "an endless name of a tag": lambda: read_tags("a" * MEGABYTE + "=" + "b " * MEGABYTE),
    "base64 that almost is": lambda: base64_octets("A" * MEGABYTE + "=" * MEGABYTE),
    "base64 with spaces": lambda: base64_octets("A " * MEGABYTE),
    "a body of spaces": lambda: hash_body(b" " * 8 * MEGABYTE, {BodyHash(how) for how in Canonical}),
    "a body of empty lines": lambda: hash_body(b"\r\n" * 4 * MEGABYTE + b"x", {BodyHash(how) for how in Canonical}),
    "a body of bare returns": lambda: hash_body(b"\r" * 8 * MEGABYTE, {BodyHash(how) for how in Canonical}),
    "a body of empty lines with spaces": lambda: hash_body(
        b" \t\r\n" * MEGABYTE, {BodyHash(how) for how in Canonical}
    ),
    "dots in a name": lambda: dns_name("a." * MEGABYTE),
    "a name beyond ASCII": lambda: dns_name("ä." * MEGABYTE),
    "a macro of digits": lambda: refused(MacroError, read_macro_string, "%{d" + "9" * MEGABYTE),
    "a macro with delimiters": lambda: expand_domain(read_macro_string("%{s" + "." * 8000 + "}"), VALUES),
    "an open quotation": lambda: authors('"' + "\\a" * MEGABYTE),
    "spaces in From": lambda: authors(" " * MEGABYTE + "a@b.test" + " " * MEGABYTE),
    "a long record": lambda: refused(SpfSyntaxError, read_record, "v=spf1 " + "a/" * MEGABYTE),
    "a long policy": lambda: read_policy("v=DMARC1;" + " " * MEGABYTE),
    "slashes in an SPF record": lambda: refused(SpfSyntaxError, read_record, "v=spf1 a" + "/" * 8000 + " "),
    "commas and marks in a policy": lambda: read_policy("v=DMARC1;rua=" + "! " * 1000 + "," * 1000),
}


@pytest.mark.parametrize("name", BIG)
@pytest.mark.timeout(60)
def test_large_input_ends(name: str) -> None:
    BIG[name]()
