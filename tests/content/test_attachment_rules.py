"""Files: their names however they are written, what the policy says of them, and what is left out."""

from __future__ import annotations

import base64
import email
import email.policy
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.core.checks import attachments
from gatepost.core.checks.attachments import NOT_SEARCHED, AttachmentPolicy, FileHit, Opaque, evaluate
from gatepost.core.headers import header_end, read_header
from gatepost.core.leaving import leaving_bytes, merged
from gatepost.core.manifest.actions import Action
from gatepost.core.mime.file_names import extension, names_of
from gatepost.core.mime.part import Defect
from gatepost.core.removal import Whole, removal
from gatepost.core.reply import Reply
from testbed.messages import crlf, samples, search, walk

EXE = AttachmentPolicy((("exe", Action.REJECT), ("pif", Action.QUARANTINE)))
REMOVE = AttachmentPolicy(remove=("scr",))


@pytest.mark.requirement("S4-22")
@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("Content-Disposition: attachment; filename=x.exe", "exe"),
        ('Content-Disposition: attachment; FileName="My File.EXE"', "exe"),
        ("Content-Disposition: attachment; filename=my file.exe", "exe"),
        ("Content-Disposition: attachment filename=x.exe", "exe"),
        ('content-type: audio/x-wav;\n\tname="readme.exe"', "exe"),
        ('Content-Type: a/b; name="letter.txt.exe"', "exe"),
        ('Content-Type: a/b; name="x.exe. . ."', "exe"),
        ('Content-Type: a/b; name="x.exe', "exe"),
        ('Content-Type: a/b; name="x\\.exe"', "exe"),
        ('Content-Type: a/b; name="C:\\\\dir\\\\x.exe"', "exe"),
        ('Content-Type: a/b; name="x.exe/"; filename="../x.exe"', "exe"),
        ("Content-Disposition: a; filename*=utf-8''x%2Eex%65", "exe"),
        ("Content-Disposition: a; filename*0=x.; filename*1*=e%78e", "exe"),
        ("Content-Disposition: a; filename*1=xe; filename*0=x.e", "exe"),
        ("Content-Disposition: a; filename*=utf-16''x%2e", ""),
        ("Content-Type: a/b; name==?utf-8?B?eC5leGU=?=", "exe"),
        ('Content-Type: a/b; name="=?utf-8?B?eC5l?= =?utf-8?B?eGU=?="', "exe"),
        ("Content-Type: a/b; name=a.txt; name=b.exe", "exe"),
        ("Content-Type: a/b; name=a.txt\nContent-Disposition: attachment; filename=b.exe", "exe"),
        ("Content-Type: a/b; name*=utf-8''txt%E2%80%AEcod.exe", "exe"),
        ("Content-Type: a/b; name*=utf-8''x.e%E2%80%8Bxe", "exe"),
        ("Content-Type: a/b; name*=utf-8''x%EF%BC%8Eexe", "exe"),
        ("Content-Type: a/b; name*=utf-8''x.exe%00.txt", "exe"),
        ("Content-Type: a/b; name=x.exe:Zone.Identifier", "exe"),
        ("Content-Type: a/b; name=x.exe (a comment)", "exe"),
        ("Content-Type: a/b; name=x.exe and more", "exe"),
        ('Content-Type: a/b; name=x.exe"', "exe"),
        ("Content-Type: a/b; name='x.exe'", "exe"),
        ("Content-Disposition: a; filename*=''x.exe; filename*=''b.txt", "exe"),
        ("Content-Disposition: a; filename*0=x.exe; filename*1=.txt", ""),
        ("Content-Type: a/b; name=exe", ""),
        ("Content-Type: a/b; name=x.exe.txt", ""),
        ("X-Content-Type: a/b; name=x.exe", ""),
        ("Content-Type: a/b; notname=x.exe", ""),
    ],
)
def test_names_however_they_are_written(field: str, kind: str) -> None:
    """Fails without one of the ways in which mail programs read a carrier's name."""
    kinds = {extension(name) for name in names_of(read_header(crlf(field)))}
    assert ("exe" in kinds) is (kind == "exe"), kinds


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="ab;=\"'\\ *0/.%\r\n\t=?utf-8?Q?é\0", max_size=80), st.binary(max_size=30))
def test_no_field_is_too_broken_for_its_names(text: str, octets: bytes) -> None:
    field = b"Content-Type: a/b; name" + text.encode() + octets
    assert all(name.isprintable() and "/" not in name for name in names_of(read_header(field)))


@pytest.mark.requirement("S0-42")
@pytest.mark.requirement("S4-27")
@pytest.mark.parametrize(
    ("hits", "opaque", "defects", "verdicts"),
    [
        ([], [], [], []),
        ([FileHit(".exe", Action.REJECT, "x.exe", 2)], [], [], [(Action.REJECT, ".exe: x.exe", 554)]),
        (
            [FileHit(".exe", Action.DEFER, "x.exe", 2, "a.zip")],
            [],
            [],
            [(Action.DEFER, ".exe: x.exe in a.zip", 451)],
        ),
        ([FileHit(".pif", Action.QUARANTINE, "x.pif", 2)], [], [], [(Action.QUARANTINE, ".pif: x.pif", 0)]),
        ([FileHit(".doc", Action.ACCEPT, "x.doc", 2)], [], [], [(Action.ACCEPT, ".doc: x.doc", 0)]),
        ([FileHit(".doc", Action.DISCARD, "x.doc", 2)], [], [], [(Action.DISCARD, ".doc: x.doc", 0)]),
        ([], [Opaque("a.7z", 2, "encrypted")], [], [(Action.TAG, "a.7z cannot be looked into: encrypted", 0)]),
        ([], [], [Defect.NO_END], [(Action.TAG, "no final delimiter", 0)]),
        (
            [FileHit(".a", Action.TAG, "x.a", 1), FileHit(".b", Action.REJECT, "x.b", 1)],
            [],
            [],
            [(Action.REJECT, ".b: x.b", 554), (Action.TAG, ".a: x.a", 0)],
        ),
    ],
)
def test_what_follows(
    hits: list[FileHit],
    opaque: list[Opaque],
    defects: list[Defect],
    verdicts: list[tuple[Action, str, int]],
) -> None:
    """Fails without an administrator's own rules on names, in force with the next configuration."""
    found = evaluate(EXE, hits, opaque, defects, [])
    assert not isinstance(found, Reply)
    told = [(one.action, one.reason, one.answer.code if one.refuses else 0) for one in found]
    assert told == verdicts


def test_what_cannot_be_searched_is_refused() -> None:
    assert evaluate(EXE, [], [], [Defect.NOT_SEARCHED], []) is NOT_SEARCHED
    many = [FileHit("remove", Action.TAG, "x.scr", 1)] * (attachments.MAX_REMOVED + 1)
    assert evaluate(EXE, [], [], [], many) is NOT_SEARCHED


def test_a_grave_rule_is_not_hidden_by_many_mild_ones() -> None:
    policy = AttachmentPolicy((("doc", Action.TAG), ("exe", Action.REJECT)))
    parts = b"--a\r\nContent-Type: a/b; name=x.doc\r\n\r\n" * 300
    message = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n" + parts
    found = search(message + b"--a\r\nContent-Type: a/b; name=x.exe\r\n\r\n--a--\r\n", policy).found
    judged = evaluate(policy, found.hits, found.opaque, found.defects, [])
    assert not isinstance(judged, Reply)
    assert judged[0].action is Action.REJECT
    assert len(judged) < 10


INNER = crlf("Content-Type: multipart/mixed; boundary=i\n\n--i\nContent-Type: a/b; name=x.exe\n\nMZ\n--i--\n")


@pytest.mark.parametrize(
    "message",
    [
        b"Content-Type: message/rfc822\r\n\r\n" + INNER,
        b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(INNER),
        b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        + INNER.replace(b"=", b"=3D"),
        b"Subject: x\r\n\r\nbegin 644 x.exe\r\nM23\r\n`\r\nend\r\n",
    ],
)
def test_messages_and_files_inside_are_searched(message: bytes) -> None:
    for cuts in ((), range(0, len(message), 7)):
        (hit,) = search(message, EXE, cuts=cuts).found.hits
        assert (hit.rule, hit.name, hit.action) == (".exe", "x.exe", Action.REJECT)


NOTE = (
    "Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n"
    "Content-Disposition: inline\r\n\r\n"
    'The file "x.scr" was removed from this message by the mail gateway:\r\n'
    "files of this kind are not delivered here."
)
REMOVALS = {
    "a part": (
        "Content-Type: multipart/mixed; boundary=a\n\n--a\n\nHi\n--a\nContent-Type: a/b; name=x.scr\n\nMZ\n--a--\n",
        f"Content-Type: multipart/mixed; boundary=a\n\n--a\n\nHi\n--a\n{NOTE}\n--a--\n",
    ),
    "a part that nothing ends": (
        "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: a/b; name=x.scr\n\nMZ\n",
        f"Content-Type: multipart/mixed; boundary=a\n\n--a\n{NOTE}\n",
    ),
    "a part without a body": (
        "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: a/b; name=x.scr\n--a\n\nHi\n--a--\n",
        f"Content-Type: multipart/mixed; boundary=a\n\n--a\n{NOTE}\n--a\n\nHi\n--a--\n",
    ),
    "the message itself": (
        "Subject: s\nContent-Type: a/b; name=x.scr\nMIME-Version: 1.0\nContent-Transfer-Encoding: base64\n\nTVo=\n",
        "Subject: s\nContent-Type: text/plain; charset=us-ascii\nContent-Transfer-Encoding: 7bit\n"
        "Content-Disposition: inline\nMIME-Version: 1.0\n\n" + NOTE.partition("\r\n\r\n")[2] + "\n",
    ),
    "the message itself, without a body": (
        "Content-Disposition: a; filename=x.scr\nSubject: s\n",
        "MIME-Version: 1.0\n"
        + NOTE.partition("\r\n\r\n")[0]
        + "\nSubject: s\n\n"
        + NOTE.partition("\r\n\r\n")[2]
        + "\n",
    ),
    "a message inside": (
        "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: message/rfc822; name=x.scr\n\n"
        "Subject: y\n\nHi\n--a\n\nbye\n--a--\n",
        f"Content-Type: multipart/mixed; boundary=a\n\n--a\n{NOTE}\n--a\n\nbye\n--a--\n",
    ),
    "in a message inside": (
        "Content-Type: message/rfc822\n\nContent-Type: multipart/mixed; boundary=a\n\n--a\n"
        "Content-Type: a/b; name=x.scr\n\nMZ\n--a--\n",
        f"Content-Type: message/rfc822\n\nContent-Type: multipart/mixed; boundary=a\n\n--a\n{NOTE}\n--a--\n",
    ),
    "a uuencoded file": (
        "Subject: s\n\nHi\nbegin 644 x.scr\nM23\n`\nend\nbye\n",
        "Subject: s\n\nHi\n"
        + "".join(f"[{line}]\n" for line in NOTE.partition("\r\n\r\n")[2].splitlines())
        + "bye\n",
    ),
    "a uuencoded file in a part that is removed anyway": (
        "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: text/plain; name=x.scr\n\n"
        "begin 644 x.scr\nM23\n`\nend\n--a--\n",
        f"Content-Type: multipart/mixed; boundary=a\n\n--a\n{NOTE}\n--a--\n",
    ),
    "nothing": ("Subject: x.scr\n\nx.scr\n", "Subject: x.scr\n\nx.scr\n"),
}


def without(message: bytes, policy: AttachmentPolicy = REMOVE) -> bytes:
    found = list(search(message, policy).found.removed.values())
    end = header_end(message)
    whole = Whole(message[:end], end < len(message), len(message))
    taken = removal([(one.what, one.hit.name) for one in found], policy.note, whole)
    assert merged(taken.strip) == taken.strip or not taken.strip
    return leaving_bytes(message, taken.strip, taken.insert)


@pytest.mark.requirement("S4-26")
@pytest.mark.parametrize("case", REMOVALS)
def test_what_is_left_of_a_message(case: str) -> None:
    """Fails without removal of attachments, or with one that changes more than the part or breaks the structure."""
    before, after = (crlf(text) for text in REMOVALS[case])
    assert without(before).decode() == after.decode()
    assert walk(after).defects <= {Defect.NO_END}
    if case != "nothing":
        assert search(after, REMOVE).found.removed == {}


@pytest.mark.parametrize("note", ["添付ファイル $name は削除されました", "-- a\n--a--\n$name", "--$name"])
def test_a_note_is_no_delimiter_and_can_be_in_any_language(note: str) -> None:
    message = crlf(REMOVALS["a part"][0]).replace(b"x.scr", b"x--a.scr")
    after = without(message, AttachmentPolicy(remove=("scr",), note=note))
    parsed = email.message_from_bytes(after, policy=email.policy.default)
    parts = list(parsed.iter_parts())
    assert len(parts) == 2
    assert parts[1].get_content().strip().splitlines() == note.replace("$name", "x--a.scr").splitlines()
    assert after.isascii()


def test_the_548_samples() -> None:
    """No exception, plausible counts; and what is removed leaves everything else as it was."""
    policy = AttachmentPolicy((("sig", Action.TAG), ("exe", Action.REJECT)), remove=("txt", "gif", "jpg", "asc"))
    counts: Counter[str] = Counter()
    for name, message in samples():
        found = search(message, policy).found
        counts["messages"] += 1
        counts["broken"] += bool(found.defects) and not name.startswith("msg_")
        counts["removed"] += len(found.removed)
        counts["exe"] += any(hit.rule == ".exe" for hit in found.hits)
        if found.removed:
            after = without(message, policy)
            assert search(after, policy).found.removed == {}
            assert len(walk(after).of("part")) <= len(walk(message).of("part"))
    assert counts["messages"] == 548
    assert counts["broken"] == 0, "all of these are honest mail of lists"
    assert counts["exe"] == 0
    assert 5 <= counts["removed"] <= 60
