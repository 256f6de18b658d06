"""The walk through a message's parts: whole ones as they stand, broken ones as some reader would repair them."""

from __future__ import annotations

import tracemalloc
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.core.mime import walker
from gatepost.core.mime.part import Defect
from testbed.messages import crlf, walk

D = Defect
NIMDA = crlf(
    """Content-Type: multipart/related; type="multipart/alternative"; boundary="=====outer"

--=====outer
Content-Type: multipart/alternative; boundary="=====inner"

--=====inner
Content-Type: text/html

<iframe src=cid:x></iframe>
--=====inner--

--=====outer
Content-Type: audio/x-wav; name="readme.exe"
Content-Transfer-Encoding: base64
Content-ID: <x>

TVqQAAM=
"""
)
BROKEN = [
    # (what it is, message, names that are found, defects)
    ("final delimiter missing", NIMDA, ["readme.exe"], {D.NO_END}),
    (
        "back on level 1 without the end of level 2",
        NIMDA.replace(b"--=====inner--\r\n", b"") + b"--=====outer--\r\n",
        ["readme.exe"],
        {D.NO_END},
    ),
    (
        "another boundary than declared",
        b"Content-Type: multipart/mixed; boundary=abc\n\n--xyz\nContent-Type: a/b; name=x.pif\n\nMZ\n--xyz--\n",
        ["x.pif"],
        {D.LOOSE_DELIMITER},
    ),
    (
        "another boundary from the second part on",
        b"Content-Type: multipart/mixed; boundary=abc\n\n--abc\nContent-Type: text/plain\n\nHi\n"
        b"--abd\nContent-Type: a/b; name=x.doc.pif\n\nMZ\n--abd\n\nmore\n--abc--\n",
        ["x.doc.pif"],
        {D.LOOSE_DELIMITER},
    ),
    (
        "no boundary at all",
        b"Content-Type: multipart/mixed\n\n--q\ncontent-disposition: attachment; filename=x.bat\n\nMZ\n--q--\n",
        ["x.bat"],
        {D.NO_BOUNDARY, D.LOOSE_DELIMITER},
    ),
    (
        "a boundary that begins with an open one",
        b"Content-Type: multipart/mixed; boundary=abc\n\n--abc\n\nHi\n--abcdef\nContent-Type: a/b; name=x.com\n\n"
        b"MZ\n--abc--\n",
        ["x.com"],
        {D.LOOSE_DELIMITER},
    ),
    (
        "an outer boundary that the inner one begins with is no reason to leave",
        b"Content-Type: multipart/mixed; boundary=abc\n\n--abc\nContent-Type: multipart/mixed; boundary=abcdef\n\n"
        b"--abcdef\nContent-Type: a/b; name=1.exe\n\nMZ\n--abcdef\nContent-Type: a/b; name=2.exe\n\nMZ\n"
        b"--abcdef--\n--abc--\n",
        ["1.exe", "2.exe"],
        set(),
    ),
    (
        "a part behind the end",
        b"Content-Type: multipart/mixed; boundary=abc\n\n--abc\n\nHi\n--abc--\n--abc\n"
        b"Content-Type: a/b; name=x.scr\n\nMZ\n",
        ["x.scr"],
        {D.BEHIND_END},
    ),
    (
        "text behind the end, which lists add",
        b"Content-Type: multipart/mixed; boundary=abc\n\n--abc\n\nHi\n--abc--\n-- \na list\n----\nfooter\n",
        [],
        set(),
    ),
    (
        "a header without an empty line",
        b"Content-Type: multipart/mixed; boundary=abc\n\n--abc\nContent-Type: a/b\nMZ begins here\n"
        b"Content-Disposition: attachment; filename=x.exe\n--abc--\n",
        ["x.exe"],
        {D.NO_BLANK_LINE},
    ),
    (
        "two types, of which one is a container",
        b"Content-Type: text/plain\nContent-Type: multipart/mixed; boundary=abc\n\n--abc\n"
        b"Content-Type: a/b; name=x.exe\n\nMZ\n--abc--\n",
        ["x.exe"],
        {D.AMBIGUOUS},
    ),
    (
        "two boundaries, the second is used",
        b"Content-Type: multipart/mixed; boundary=one; boundary=two\n\n--two\nContent-Type: a/b; name=x.exe\n\n"
        b"MZ\n--two--\n",
        ["x.exe"],
        set(),
    ),
    (
        "blanks behind the boundary and in quotes",
        b'Content-Type: multipart/mixed; boundary="a b "\n\n--a b  \t\nContent-Type: a/b; name=x.exe\n\nMZ\n'
        b"--a b--\n",
        ["x.exe"],
        set(),
    ),
    (
        "nothing of what was declared",
        b"Content-Type: multipart/mixed; boundary=abc\n\nHello\n",
        [],
        {D.UNUSED_BOUNDARY},
    ),
    (
        "a message in a digest without a type, and one in it",
        b"Content-Type: multipart/digest; boundary=abc\n\n--abc\n\nContent-Type: message/rfc822\n\n"
        b"Content-Type: a/b; name=x.exe\n\nMZ\n--abc--\n",
        ["x.exe"],
        set(),
    ),
    ("uuencoded, in a plain text", b"Subject: x\n\nbegin 644 x.exe\nM23\n`\nend\n", [], set()),
    (
        "a text that looks like a delimiter and is none",
        b"Subject: x\n\n--abc\nContent-Type: a/b; name=x.exe\n",
        [],
        set(),
    ),
]


@pytest.mark.requirement("S4-24")
@pytest.mark.parametrize(
    ("message", "names", "defects"), [one[1:] for one in BROKEN], ids=[one[0] for one in BROKEN]
)
def test_broken_mime_is_survived_and_searched(message: bytes, names: list[str], defects: set[Defect]) -> None:
    """Fails without the search for parts where delimiters are wrong or missing, as SirCam sent them."""
    found = walk(crlf(message))
    assert found.names == names
    assert found.defects == defects


@pytest.mark.requirement("S4-23")
def test_every_part_of_every_level_is_seen() -> None:
    """Fails without a look at level 2 and then at level 1 again, where Nimda had its file."""
    found = walk(NIMDA)
    assert [one[1] for one in found.of("part")] == [0, 1, 2, 1]
    assert found.names == ["readme.exe"]


@pytest.mark.requirement("S4-25")
def test_depth_is_limited_and_what_lies_deeper_is_still_searched() -> None:
    """Fails without a limit on nesting: memory and time would grow with it."""
    message = b""
    for level in range(30):
        message += b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level)
    message += b"Content-Type: a/b; name=deep.exe\r\n\r\nMZ\r\n"
    found = walk(message, max_depth=5)
    assert max(one[1] for one in found.of("part")) <= 6
    assert D.TOO_DEEP in found.defects
    assert found.names == ["deep.exe"]


def test_the_number_of_parts_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    message = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n" + b"--a\r\n\r\n" * 40
    last = b"--a\r\nContent-Type: a/b; name=x.exe\r\n\r\n"
    found = walk(message + last, max_parts=10)
    assert D.TOO_MANY in found.defects
    assert found.names == ["x.exe"], "what is too much is told, and searched"
    monkeypatch.setattr(walker, "MAX_SEARCHED", 30)
    found = walk(message + last)
    assert D.NOT_SEARCHED in found.defects
    assert found.names == []


def test_offsets_leave_the_delimiters() -> None:
    message = crlf(
        "Content-Type: multipart/mixed; boundary=a\n\n--a\nX: y\n\none\n--a\n"
        "Content-Type: a/b; name=f\n\ntwo\n--a--\n"
    )
    found = walk(message)
    (_, _, begin, body, *_), end = found.of("part")[2], found.of("ended")[1][1]
    assert message[begin:end] == b"Content-Type: a/b; name=f\r\n\r\ntwo"
    assert message[body:end] == b"two"
    assert message[end:] == b"\r\n--a--\r\n"


def test_a_file_in_a_text_is_found_with_its_place() -> None:
    message = crlf("Subject: x\n\nHi\nbegin 644 a/b.vbs\nM23\n`\nend\nbye\n")
    ((name, begin, end),) = walk(message).of("file")
    assert (name, message[begin:end]) == ("b.vbs", b"begin 644 a/b.vbs\r\nM23\r\n`\r\nend\r\n")


LINES = st.sampled_from(
    [
        *(
            b"",
            b"Hello",
            b"--",
            b"--a",
            b"--a--",
            b"--ab",
            b"--b",
            b"--b--",
            b"-- ",
            b"begin 644 x.exe",
            b"end",
            b" fold",
        ),
        *(b"Content-Type: multipart/mixed; boundary=a", b'content-type: multipart/digest; boundary="b"'),
        *(
            b"Content-Type: multipart/mixed",
            b"Content-Type: message/rfc822",
            b"Content-Type: text/plain; name=x.exe",
        ),
        *(b"Content-Disposition: attachment; filename*=utf-8''%41.exe", b"Content-Transfer-Encoding: base64"),
        *(b"no field", b"From x", b"Subject: s", b"TVqQAAMAAAAEAAAA", b"\xff\xfe", b"\0", b"\r", b"a\nb", b"=\r"),
    ]
)


@settings(max_examples=50, deadline=None)
@given(st.lists(LINES, max_size=60), st.binary(max_size=30), st.lists(st.integers(0, 1500), max_size=12))
def test_pieces_make_no_difference(lines: list[bytes], rest: bytes, cuts: list[int]) -> None:
    message = b"\r\n".join(lines) + rest
    whole, cut = walk(message, max_depth=4), walk(message, cuts, max_depth=4)
    assert whole.all == cut.all
    assert walk(message, range(len(message)), max_depth=4).all == whole.all
    for number, _, begin, body, *_ in whole.of("part"):
        assert 0 <= begin <= body <= len(message)
        assert number >= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(LINES, max_size=60), st.lists(st.integers(0, 1500), max_size=12))
def test_pieces_make_no_difference_behind_the_limits(lines: list[bytes], cuts: list[int]) -> None:
    message = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n" + b"\r\n".join(lines)
    with mock.patch.multiple(walker, MAX_LOOKED=3, MAX_SEARCHED=5, MAX_HEADER=200, MAX_LINE=40):
        assert walk(message, cuts).all == walk(message).all == walk(message, range(len(message))).all


@pytest.mark.parametrize(
    "line",
    [
        b"--\r\n",
        b"--a\r\n\r\n",
        b"--a--\r\n",
        b"begin 644 a.b\r\n",
        b"a:\r\n",
        b"\r\n--a\r\nContent-A: b\r\n\r\n",
        b"x",
    ],
)
def test_memory_is_bounded_whatever_comes(line: bytes) -> None:
    """More than a walker may keep of what costs it most: some MiB or thousands of lines."""

    class Nothing:
        def part(self, part: object) -> bool:
            return True

        def body(self, part: object, piece: bytes) -> None: ...
        def ended(self, part: object) -> None: ...
        def uuencoded(self, file: object) -> None: ...
        def defect(self, defect: Defect) -> None: ...

    piece = line * (65536 // len(line))
    one = walker.Walker(Nothing(), 20, 1000)  # type: ignore[arg-type]
    one.feed(b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n")
    tracemalloc.start()
    try:
        for _ in range(64 if line == b"x" else 6):
            one.feed(piece)
        one.finish()
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
