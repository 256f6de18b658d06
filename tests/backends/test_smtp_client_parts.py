"""The pure parts of the SMTP client: replies, dot-stuffing, command lines."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.backends.body import MemoryBody
from gatepost.backends.smtp_client.commands import (
    HostLimits,
    local_fault,
    mail_line,
    rcpt_line,
    read_extensions,
    read_limits,
    rounds,
    unfit,
)
from gatepost.backends.smtp_client.replies import (
    MAX_LINE,
    MAX_LINES,
    MAX_TEXT,
    GarbledReply,
    Reply,
    ReplyParser,
)
from gatepost.backends.smtp_client.stuffing import BareNewline, DotStuffer
from gatepost.core.envelope import BodyType
from gatepost.core.ports.transport import OutgoingMessage, TransportRecipient


@pytest.mark.parametrize(
    ("sent", "code", "enhanced", "text"),
    [
        (b"250 2.1.0 fine\r\n", 250, "2.1.0", "fine"),
        (b"250\r\n", 250, "", ""),
        (b"250 \r\n", 250, "", ""),
        (b"250-one\r\n250-two\r\n250 three\r\n", 250, "", "one two three"),
        (b"550-5.1.1 no such\r\n550 5.1.1 user\r\n", 550, "5.1.1", "no such user"),
        (b"550 5.1.1\r\n", 550, "5.1.1", ""),
        (b"550 2.1.1 odd class\r\n", 550, "", "odd class"),
        (b"550 5.1.1234 too long\r\n", 550, "", "5.1.1234 too long"),
        (b"550 15.1.1 no code\r\n", 550, "", "15.1.1 no code"),
        (b"450 4.2.1\ttab\r\n", 450, "4.2.1", "tab"),
        (b"220 bare line feed\n", 220, "", "bare line feed"),
        (b"550 \xe6\x97\xa5 \xff\r\n", 550, "", "日 �"),
        (b"550 esc\x1b[2J\x07 tab\tcr\rx\r\n", 550, "", "esc [2J  tab cr x"),
    ],
)
def test_replies(sent: bytes, code: int, enhanced: str, text: str) -> None:
    [reply] = ReplyParser().feed(sent)
    assert (reply.code, reply.enhanced, reply.text) == (code, enhanced, text)


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\r\n",
        b"25 0\r\n",
        b"250x\r\n",
        b"150 no\r\n",
        b"650 no\r\n",
        b"250-one\r\n251 two\r\n",
        b"250 " + b"x" * MAX_LINE + b"\r\n",
        b"x" * (MAX_LINE + 1),
        b"250-x\r\n" * (MAX_LINES + 1),
        b"\x00\x01\x02\r\n",
        "２５０ ok\r\n".encode(),
    ],
)
def test_garbage_is_no_reply(sent: bytes) -> None:
    with pytest.raises(GarbledReply):
        ReplyParser().feed(sent)


def test_a_reply_may_come_octet_by_octet() -> None:
    parser = ReplyParser()
    sent = b"250-a\r\n250 b\r\n354 go\r\n"
    found = [reply for octet in sent for reply in parser.feed(bytes([octet]))]
    assert found == [Reply(250, ("a", "b")), Reply(354, ("go",))]
    assert not parser.pending
    assert parser.feed(b"25") == []
    assert parser.pending


def test_a_long_reply_is_cut() -> None:
    [reply] = ReplyParser().feed(b"550-" + b"x" * 1500 + b"\r\n550 " + b"y" * 1500 + b"\r\n")
    assert len(reply.text) == MAX_TEXT


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes_in_any_pieces_are_replies_or_garbage(data: bytes, cuts: list[int]) -> None:
    parser = ReplyParser()
    try:
        for begin, end in itertools.pairwise([0, *sorted(cuts), 300]):
            for reply in parser.feed(data[begin:end]):
                assert 200 <= reply.code <= 599
                assert reply.text.isprintable()
    except GarbledReply:
        pass


def stuffed(pieces: list[bytes]) -> bytes:
    stuffer = DotStuffer()
    return b"".join(map(stuffer.feed, pieces)) + stuffer.finish()


def unstuffed(sent: bytes) -> bytes:
    """Take the content off the wire as a strict server does."""
    assert (b"\r\n" + sent).index(b"\r\n.\r\n") == len(sent) - 3, "an end of data within the content"
    return re.sub(rb"(^|\r\n)\.", rb"\1", sent[:-3])


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        (b"", b".\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"\r\n.\r\n", b"\r\n..\r\n.\r\n"),
        (b"a\r\n.\r\n.\r\n..b\r\n", b"a\r\n..\r\n..\r\n...b\r\n.\r\n"),
        (b"a.\r\nb.c\r\n", b"a.\r\nb.c\r\n.\r\n"),
    ],
)
def test_dots(content: bytes, sent: bytes) -> None:
    assert stuffed([content]) == sent
    # Whatever the pieces are: every octet alone, and every cut in two.
    assert stuffed([content[place : place + 1] for place in range(len(content))]) == sent
    for place in range(len(content) + 1):
        assert stuffed([content[:place], b"", content[place:]]) == sent


LINES = st.lists(st.sampled_from([b"", b".", b"..", b"a", b".a", b"a.", b". "]), max_size=8).map(b"\r\n".join)


@given(LINES, st.lists(st.integers(0, 30), max_size=4))
def test_what_is_stuffed_comes_out_as_it_was(content: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(content) + 30]
    sent = stuffed([content[begin:end] for begin, end in itertools.pairwise(places)])
    whole = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
    assert unstuffed(sent) == whole


@pytest.mark.parametrize(
    "content",
    [b"a\nb", b"a\rb", b"\n.\n", b"a\r\r\n", b"a\r", b"\n", b"\r", b"a\n.\r\nMAIL FROM:<x>\r\n", b"a\r\n\nb\r\n"],
)
def test_bare_newlines_are_never_sent(content: bytes) -> None:
    for place in range(len(content) + 1):
        with pytest.raises(BareNewline):
            stuffed([content[:place], content[place:]])
    with pytest.raises(BareNewline):
        stuffed([content[place : place + 1] for place in range(len(content))])


def a_message(**changes: object) -> OutgoingMessage:
    values: dict[str, object] = {
        "id": "01",
        "reverse_path": "a@example.test",
        "recipients": (TransportRecipient("1", "b@example.org", "SUCCESS,FAILURE", "rfc822;b+2Bx@example.org"),),
        "prepend": b"X: 1\r\n",
        "body": MemoryBody(b"text\r\n"),
        "body_type": BodyType.SEVEN_BIT,
        "smtputf8": False,
        "ret": "HDRS",
        "envid": "QQ314159",
    }
    return OutgoingMessage(**(values | changes))  # type: ignore[arg-type]


def test_parameters_only_where_announced() -> None:
    everything = read_extensions(
        Reply(
            250, ("mx.test at your service", "PIPELINING", "size 1000", "8bitmime", "SMTPUTF8", "DSN", "AUTH=LOGIN")
        )
    )
    assert everything == {
        "PIPELINING": "",
        "SIZE": "1000",
        "8BITMIME": "",
        "SMTPUTF8": "",
        "DSN": "",
        "AUTH": "LOGIN",
    }
    message = a_message(body_type=BodyType.EIGHT_BIT_MIME, smtputf8=True)
    assert mail_line(message, everything) == (
        b"MAIL FROM:<a@example.test> SIZE=12 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314159\r\n"
    )
    assert rcpt_line(message.recipients[0], everything, True) == (
        b"RCPT TO:<b@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b+2Bx@example.org\r\n"
    )
    plain = a_message(reverse_path="")
    assert mail_line(plain, {}) == b"MAIL FROM:<>\r\n"
    assert rcpt_line(plain.recipients[0], {}, False) == b"RCPT TO:<b@example.org>\r\n"


def test_parameters_that_would_break_the_line_are_left_out() -> None:
    extensions = {"DSN": ""}
    message = a_message(envid="a b\r\nRSET", ret="")
    assert mail_line(message, extensions) == b"MAIL FROM:<a@example.test>\r\n"
    recipient = TransportRecipient("1", "b@example.org", "NEVER\r\nDATA", "utf-8;日@example.org")
    assert rcpt_line(recipient, extensions, False) == b"RCPT TO:<b@example.org>\r\n"
    assert (
        rcpt_line(recipient, extensions, True) == "RCPT TO:<b@example.org> ORCPT=utf-8;日@example.org\r\n".encode()
    )


@pytest.mark.parametrize(
    ("changes", "extensions", "code", "enhanced"),
    [
        ({}, {}, 0, ""),
        ({"body_type": BodyType.EIGHT_BIT_MIME}, {}, 554, "5.6.3"),
        ({"body_type": BodyType.EIGHT_BIT_MIME}, {"8BITMIME": ""}, 0, ""),
        ({"smtputf8": True}, {"8BITMIME": ""}, 554, "5.6.7"),
        ({"smtputf8": True}, {"SMTPUTF8": ""}, 0, ""),
        ({"reverse_path": "日@example.jp"}, {}, 554, "5.6.7"),
        ({"recipients": (TransportRecipient("1", "日@example.jp"),)}, {}, 554, "5.6.7"),
        ({}, {"SIZE": "11"}, 552, "5.3.4"),
        ({}, {"SIZE": "12"}, 0, ""),
        ({}, {"SIZE": "0"}, 0, ""),
        ({}, {"SIZE": ""}, 0, ""),
        ({}, {"SIZE": "nonsense"}, 0, ""),
    ],
)
def test_what_a_host_must_offer(
    changes: dict[str, object], extensions: dict[str, str], code: int, enhanced: str
) -> None:
    refusal = unfit(a_message(**changes), extensions)
    assert (refusal.code, refusal.enhanced) == (code, enhanced) if refusal else code == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"reverse_path": "a@b\r\nRSET"},
        {"reverse_path": "a\0@b"},
        {"recipients": (TransportRecipient("1", "a@b\n"),)},
        {"recipients": (TransportRecipient("1", ""),)},
        {"recipients": (TransportRecipient("1", "\udc80@b"),)},
        {"prepend": b"X: 1"},
        {"prepend": b"X: 1\nY: 2\r\n"},
        {"prepend": b"X: 1\rY\r\n"},
    ],
)
def test_a_damaged_envelope_is_a_fault_of_ours(changes: dict[str, object]) -> None:
    fault = local_fault(a_message(**changes))
    assert fault is not None
    assert (fault.code, fault.enhanced, fault.remote) == (451, "4.3.0", "")
    assert local_fault(a_message(reverse_path="", prepend=b"")) is None


@pytest.mark.parametrize(
    ("announced", "limits"),
    [
        ("RCPTMAX=20", HostLimits(recipients=20)),
        ("mailmax=3 RCPTMAX=100 RcptDomainMax=1", HostLimits(3, 100, 1)),
        ("", HostLimits()),
        ("RCPTMAX=0 MAILMAX=-1 RCPTDOMAINMAX=1234567", HostLimits()),
        ("RCPTMAX=x OTHER=5 MAILMAX=7", HostLimits(mails=7)),
    ],
)
def test_limits_of_a_host(announced: str, limits: HostLimits) -> None:
    """RFC 9422 4."""
    assert read_limits({"LIMITS": announced}) == limits
    assert read_limits({}) == HostLimits()


@given(
    st.lists(st.sampled_from(["a", "b", "C", "c"]), min_size=1, max_size=30),
    st.integers(1, 6),
    st.integers(1, 3),
)
def test_rounds(domains: list[str], recipients: int, most_domains: int) -> None:
    """Every place once, no round above a limit, and one round where one is enough."""
    named = [TransportRecipient(str(n), f"{n}@{domain}.example") for n, domain in enumerate(domains)]
    parts = rounds(named, HostLimits(recipients=recipients, domains=most_domains))
    assert sorted(place for part in parts for place in part) == list(range(len(domains)))
    for part in parts:
        assert 1 <= len(part) <= recipients
        assert len({domains[place].lower() for place in part}) <= most_domains
    if len(domains) <= recipients and len({one.lower() for one in domains}) <= most_domains:
        assert len(parts) == 1
    assert len(rounds(named, HostLimits())) == 1
