"""Character sets: what is declared, what is written, and what ISO-2022-JP may not have in it."""

from __future__ import annotations

import pytest

from gatepost.core.checks.charset import CharsetPolicy, canonical, header_finding, text_fault, verdict
from gatepost.core.headers import read_header
from gatepost.core.manifest.actions import Action
from gatepost.core.mime.words import decode_words, encoded_words
from testbed.messages import search

JAPANESE = CharsetPolicy((canonical("iso-2022-jp"),))
UNICODE = CharsetPolicy((canonical("UTF-8"), canonical("Shift_JIS")))
DAY = "日本".encode("iso-2022-jp")


@pytest.mark.requirement("S4-29")
@pytest.mark.parametrize(
    ("policy", "declared", "octets", "fault"),
    [
        (JAPANESE, "iso-2022-jp", DAY, ""),
        (JAPANESE, "", b"plain", ""),
        (JAPANESE, "", DAY, ""),
        (JAPANESE, "ISO-2022-JP", "日本".encode("shift_jis"), "8-bit octets in iso-2022-jp"),
        (JAPANESE, "iso-2022-jp", "日本".encode("euc_jp"), "8-bit octets in iso-2022-jp"),
        (JAPANESE, "shift_jis", "日本".encode("shift_jis"), "charset shift_jis"),
        (JAPANESE, "utf-8", b"plain", "charset utf-8"),
        (JAPANESE, "iso-2022-jp", "①".encode("iso2022_jp_ext", "replace") + b"\x1b$B-!\x1b(B", "NEC or IBM"),
        (JAPANESE, "iso-2022-jp", b"\x1b$B-5\x1b(B", "NEC or IBM"),  # a Roman numeral
        (JAPANESE, "iso-2022-jp", b"\x1b$B|!\x1b(B", "NEC or IBM"),
        (JAPANESE, "iso-2022-jp", b"\x1b(I1\x1b(B", "half-width kana"),
        (JAPANESE, "iso-2022-jp", b"\x0e1\x0f", "half-width kana"),
        (JAPANESE, "iso-2022-jp", b"\x1b$A!!\x1b(B", "escape sequence"),
        (JAPANESE, "iso-2022-jp", b"\x1b$B" + b"F|K\\" * 10 + b"\r\n-- \r\nsignature", ""),
        (UNICODE, "", b"\xe6", "8-bit octets where us-ascii"),
        (UNICODE, "utf-8", "日本".encode(), ""),
        (UNICODE, "utf-8", "日本".encode("shift_jis"), "no utf-8"),
        (UNICODE, "x-sjis", "日本".encode("shift_jis"), ""),
        (UNICODE, "us-ascii", DAY, "escape sequences where us-ascii"),
        (UNICODE, "x-nobody\x01knows", b"a", "charset x-nobody?knows"),
    ],
)
def test_texts(policy: CharsetPolicy, declared: str, octets: bytes, fault: str) -> None:
    """Fails without the rules of Japanese lists: ISO-2022-JP, and in it no characters of single makers."""
    found = text_fault(policy, declared, octets)
    assert fault in found
    assert bool(found) is bool(fault)


def test_a_text_that_was_cut_is_no_fault() -> None:
    assert text_fault(UNICODE, "utf-8", "日".encode()[:2]) != ""
    assert text_fault(UNICODE, "utf-8", "日".encode()[:2], cut=True) == ""


@pytest.mark.parametrize(
    ("policy", "header", "where"),
    [
        (JAPANESE, b"Subject: =?ISO-2022-JP?B?GyRCRnxLXBsoQg==?=", ""),
        (JAPANESE, b"Subject: =?utf-8?B?5pel?=", "subject"),
        (JAPANESE, b"From: \x93\xfa <a@b.example>", "from"),
        (JAPANESE, b"Content-Disposition: attachment; filename*=utf-8''%E6%97%A5", "content-disposition"),
        (UNICODE, "Subject: 日本".encode(), ""),
        (UNICODE, "Subject: 日本".encode("shift_jis"), "subject"),
        (UNICODE, b"Subject: =?utf-8?B?5g==?=\r\n =?utf-8?B?l6U=?=", ""),  # one character in two words
        (UNICODE, b"Subject: =?utf-8?B?5g==?=", "subject"),
        (UNICODE, b"Content-Type: text/plain; name*0*=utf-8'ja'a", ""),
    ],
)
def test_headers(policy: CharsetPolicy, header: bytes, where: str) -> None:
    found = header_finding(policy, read_header(header))
    assert ("" if found is None else found.where) == where


def test_parts_of_text_are_judged_behind_their_encoding() -> None:
    message = (
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\nplain\r\n--a\r\n"
        b"Content-Type: text/plain; charset=iso-2022-jp\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        b"k/qW\r\new==\r\n--a\r\nContent-Type: image/png\r\n\r\n\xff\r\n--a--\r\n"
    )
    for cuts in ((), range(len(message))):
        finding = search(message, charset=JAPANESE, cuts=cuts).found.finding
        assert finding is not None
        assert (finding.where, finding.reason) == ("part 3", "8-bit octets in iso-2022-jp")
    one = verdict(CharsetPolicy((), Action.REJECT), finding)
    assert (one.answer.code, one.reason) == (554, "8-bit octets in iso-2022-jp (part 3)")


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("=?utf-8?Q?a_b?= =?utf-8?Q?c?= d", "a bc d"),
        ("=?utf-8?b?YQ?=", "a"),
        ("=?utf-8?B?!!?= x", " x"),
        ("=?idna?Q?xn--a?=", "xn--a"),
        ("=?unicode_escape?Q?=5Cx41?=", "\\x41"),
        ("=?us-ascii*en?Q?a?=b", "ab"),
        ("=?=?utf-8?Q?a?=", "=?a"),
        ("=? no word ?=", "=? no word ?="),
    ],
)
def test_encoded_words(text: str, decoded: str) -> None:
    assert decode_words(text) == decoded
    assert (encoded_words(text) == []) is (decoded == text)
