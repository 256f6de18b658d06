"""Header rules: what the presets hit and spare, what expressions see, and what they may cost."""

from __future__ import annotations

import pytest

from gatepost.core.checks import header_rules
from gatepost.core.checks.attachments import AttachmentPolicy, AttachmentTable, FileRule
from gatepost.core.checks.header_presets import PRESETS
from gatepost.core.checks.header_rules import HeaderRule, HeaderTable, PatternError, compile_pattern
from gatepost.core.checks.verdict import Verdict
from gatepost.core.headers import read_header
from gatepost.core.manifest.actions import Action
from gatepost.core.manifest.policy_content import HeaderPreset
from testbed.messages import samples

P = HeaderPreset


def preset_rules(preset: HeaderPreset) -> list[HeaderRule]:
    return [HeaderRule(preset.value, fields, pattern) for fields, pattern in PRESETS[preset].patterns if fields]


def judge(rules: list[HeaderRule], header: bytes | str) -> list[Verdict]:
    octets = header.encode() if isinstance(header, str) else header
    return HeaderTable(rules).evaluate(read_header(octets.replace(b"\n", b"\r\n")))


FIELDS = [
    (P.ADVERTISEMENT, "Subject: AD: buy", True),
    (P.ADVERTISEMENT, "SUBJECT:adv : buy", True),
    (P.ADVERTISEMENT, "Subject: Advertisement for you", True),
    (P.ADVERTISEMENT, "Subject: =?iso-8859-1?Q?ADV=3A_buy?=", True),
    (P.ADVERTISEMENT, "Subject: =?utf-8?B?QQ==?=\n =?utf-8?B?RFY6IGJ1eQ==?=", True),
    (P.ADVERTISEMENT, "Subject: Adventure: a game", False),
    (P.ADVERTISEMENT, "Subject: Re: AD: buy", False),
    (P.ADVERTISEMENT, "X-Subject: AD: buy", False),
    (P.MESSAGE_ID_WITHOUT_AT, "Message-Id: <123>", True),
    (P.MESSAGE_ID_WITHOUT_AT, "Message-ID:", True),
    (P.MESSAGE_ID_WITHOUT_AT, "Message-Id:\n <1@a.example>", False),
    (P.MESSAGE_ID_WITHOUT_AT, "Subject: none", False),
    (P.ROUTE_ADDRESS, "From: <a%b.example@c.example>", True),
    (P.ROUTE_ADDRESS, "To: x <b.example!a>", True),
    (P.ROUTE_ADDRESS, "To: b.example!a", True),
    (P.ROUTE_ADDRESS, "Cc: x@y.example, a%b@c.example", True),
    (P.ROUTE_ADDRESS, "Reply-To: <@b.example:a@c.example>", True),
    (P.ROUTE_ADDRESS, "From: @b.example:a@c.example", True),
    (P.ROUTE_ADDRESS, 'From: "50% off!" <a@b.example>', False),
    (P.ROUTE_ADDRESS, "From: Yahoo! <a@b.example>", False),
    (P.ROUTE_ADDRESS, "From: Hello!World <a@b.example>", False),
    (P.ROUTE_ADDRESS, "Subject: a%b@c <x!y>", False),
    (P.CONSECUTIVE_SPACES, "Subject: buy        8x41", True),
    (P.CONSECUTIVE_SPACES, "Subject: buy\n         8x41", True),
    (P.CONSECUTIVE_SPACES, "Subject: =?utf-8?Q?buy________x?=", True),
    (P.CONSECUTIVE_SPACES, "Subject: buy       7", False),
    (P.LOVELETTER, "Subject: ILOVEYOU", True),
    (P.LOVELETTER, "Subject: I love you, and you know it", False),
    (P.MELISSA, "Subject: Important Message From A. Nybody", True),
    (P.HAPPY99, "X-Spanska: Yes", True),
    (P.PAPA, "Subject: Fwd: Workbook from all.net and Fred Cohen", True),
]


@pytest.mark.requirement("S0-33")
@pytest.mark.requirement("S0-34")
@pytest.mark.requirement("S0-35")
@pytest.mark.requirement("S0-36")
@pytest.mark.requirement("S0-41")
@pytest.mark.parametrize(("preset", "header", "hits"), FIELDS)
def test_presets_over_fields(preset: HeaderPreset, header: str, hits: bool) -> None:
    """Fails without the named filters over header fields, or with ones that hit what they should spare."""
    verdicts = judge(preset_rules(preset), header)
    assert bool(verdicts) is hits
    assert all(verdict.action is Action.TAG and verdict.reason == preset.value for verdict in verdicts)


FILES = [
    (P.EXE_ATTACHMENT, "setup.EXE", True),
    (P.EXE_ATTACHMENT, "setup.exe.txt", False),
    (P.VBS_ATTACHMENT, "a.vbs", True),
    (P.VBS_ATTACHMENT, "a.vbx", False),
    (P.LOVELETTER, "LOVE-LETTER-FOR-YOU.TXT.vbs", True),
    (P.LOVELETTER, "letter.txt", False),
    (P.MELISSA, "list.doc", True),
    (P.MELISSA, "mylist.doc", False),
    (P.HAPPY99, "Happy99.exe", True),
    (P.PAPA, "path.xls", True),
    (P.PAPA, "xpass.xls", True),
    (P.PAPA, "path.xlsx", False),
]


@pytest.mark.requirement("S0-38")
@pytest.mark.requirement("S0-39")
@pytest.mark.requirement("S0-40")
@pytest.mark.parametrize(("preset", "name", "hits"), FILES)
def test_presets_over_file_names(preset: HeaderPreset, name: str, hits: bool) -> None:
    """Fails without the filters for executables, scripts and the worms that have a name."""
    rules = tuple(FileRule(preset.value, pattern) for fields, pattern in PRESETS[preset].patterns if not fields)
    assert bool(AttachmentTable(AttachmentPolicy(rules=rules)).hits(name, 1)) is hits


def test_every_preset_has_rules_and_a_text() -> None:
    assert set(PRESETS) == set(HeaderPreset)
    for preset in PRESETS.values():
        assert preset.patterns
        assert preset.text.isascii()
        for _, pattern in preset.patterns:
            compile_pattern(pattern)


@pytest.mark.parametrize(
    ("rule", "header", "acts"),
    [
        (HeaderRule("Date", ("date",), ".", invert=True), "Subject: x", True),
        (HeaderRule("Date", ("date",), ".", invert=True), "Date: today", False),
        (HeaderRule("X", ("x",), "(?-i)abc"), "X: ABC", False),
        (HeaderRule("X", ("x",), "a b$"), "X: a\n b", True),
        (HeaderRule("X", ("x",), "日本"), b"X: \xe6\x97\xa5\xe6\x9c\xac", True),
        (HeaderRule("X", ("x",), "日本"), "X: =?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", True),
        (HeaderRule("X", ("x",), "=\\?utf-8"), "X: =?utf-8?Q?a?=", True),
        (HeaderRule("X", ("x",), "ab"), "X: =?utf-8?Q?a?=\n\t=?x-unknown?Q?b?=", True),
        (HeaderRule("X", ("x",), "a"), b"X: \xff\xfe", False),
        (HeaderRule("X", ("x",), "nowhere"), "X: y\n" * (header_rules.MAX_FIELDS + 1), True),
        (HeaderRule("X", ("x",), "nowhere"), "X: y\n" * header_rules.MAX_FIELDS, False),
    ],
)
def test_what_expressions_see(rule: HeaderRule, header: bytes | str, acts: bool) -> None:
    assert bool(judge([rule], header)) is acts


def test_a_refusal_has_the_rules_text_and_tells_what_was_found() -> None:
    rule = HeaderRule("Subject", ("subject",), "bad", Action.REJECT, text="none of that")
    (verdict,) = judge([rule], "Subject: a bad\x01 thing " + "x" * 100)
    assert (verdict.answer.code, verdict.answer.enhanced, verdict.answer.text) == (554, "5.7.1", "none of that")
    assert verdict.facts["rule"] == "Subject"
    assert verdict.facts["found"].startswith("a bad? thing")
    assert len(verdict.facts["found"]) == header_rules.MAX_SHOWN


@pytest.mark.parametrize(
    "pattern", ["(", "a{2000}", "(x)\\1", "(?=x)", "(\\pL{100}){10}", "(?:x{1000}){6}", "\ud800"]
)
def test_expressions_that_cannot_be_used(pattern: str) -> None:
    with pytest.raises(PatternError):
        compile_pattern(pattern)


@pytest.mark.requirement("S0-43")
def test_honest_mail_is_seldom_hit() -> None:
    """Fails without presets that spare honest mail: of 500 real messages of lists a few have a sign of spam."""
    table = HeaderTable([rule for preset in HeaderPreset for rule in preset_rules(preset)])
    hit = [name for name, message in samples() if table.evaluate(read_header(message))]
    assert len(hit) <= 10, hit


@pytest.mark.requirement("S4-46")
@pytest.mark.parametrize(
    "name",
    [
        *("Message-Id", "Sender", "Reply-To", "Resent-From", "Resent-To", "Resent-Message-ID", "Precedence"),
        *("X-Authentication-Warning", "Delivered-To"),
    ],
)
def test_every_field_can_have_a_rule(name: str) -> None:
    """Fails without rules over the fields that an administrator must know, in any case and by their absence."""
    rule = HeaderRule(name, (name.lower(),), "bulk|@b\\.example")
    assert judge([rule], f"{name.upper()}: x@b.example")
    assert not judge([rule], f"X-{name}: x@b.example\n{name}: none")
    missing = HeaderRule(name, (name.lower(),), ".", invert=True)
    assert judge([missing], "Subject: x")
    assert not judge([missing], f"{name}: y")
