"""Archives: names at every level, and limits that hold whatever an archive claims."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.core.archives import Budget, Kind, Looking, OpaqueArchive, archive_kind, budget
from gatepost.core.checks.attachments import AttachmentPolicy
from gatepost.core.manifest.actions import Action
from testbed.messages import search


def zipped(*names: str, data: bytes = b"MZ", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def tarred(*names: str, data: bytes = b"MZ", form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def rar(name: bytes, flags: int = 0x8000, main: int = 0) -> bytes:
    """A RAR 3 archive with one stored file, by the published notes on its format."""

    def block(kind: int, block_flags: int, rest: bytes, data: bytes = b"") -> bytes:
        head = struct.pack("<BHH", kind, block_flags, 7 + len(rest)) + rest
        return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head + data

    file = struct.pack("<LLBLLBBHL", 2, 2, 0, zlib.crc32(b"MZ"), 0, 29, 0x30, len(name), 0) + name
    return (
        b"Rar!\x1a\x07\x00"
        + block(0x73, main, bytes(6))
        + block(0x74, flags, file, b"MZ")
        + block(0x7B, 0x4000, b"")
    )


def tnef(*names: bytes) -> bytes:
    out = b"\x78\x9f\x3e\x22\x01\x00"
    for name in names:
        out += b"\x02" + struct.pack("<LL", 0x00018010, len(name) + 1) + name + b"\0" + b"\0\0"
    return out


def look(data: bytes, name: str = "a.bin", late: Callable[[], bool] = lambda: False) -> tuple[list[str], str]:
    found: list[str] = []
    try:
        Looking(Budget(late), found.append, lambda: cast(BinaryIO, io.BytesIO())).look(io.BytesIO(data), name)
    except OpaqueArchive as error:
        return found, error.reason
    return found, ""


def encrypted_zip() -> bytes:
    data = bytearray(zipped("x.exe"))
    data[6] |= 1  # the flag in the entry's own header
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # and in the directory
    return bytes(data)


TGZ = packed(tarred("a/x.exe", "b.txt"))


ARCHIVES = [
    (zipped("x.exe", "d/b.txt"), "a.zip", ["x.exe", "b.txt"], ""),
    (b"anything in front" + zipped("x.exe"), "a.zip", ["x.exe"], ""),
    (zipped("x.exe", method=zipfile.ZIP_LZMA), "a.zip", ["x.exe"], ""),
    (zipped("x.exe", "日本.txt"), "a.zip", ["x.exe", "日本.txt"], ""),
    (zipped("x.exe").replace(b"x.exe", b"x.txt", 1), "a.zip", ["x.exe", "x.txt"], "damaged"),
    (encrypted_zip(), "a.zip", ["x.exe"], "encrypted"),
    (zipped("in.zip", data=zipped("x.exe")), "a.zip", ["in.zip", "x.exe"], ""),
    (zipped("in.dat", data=TGZ), "a.zip", ["in.dat", "x.exe", "b.txt"], ""),
    (zipped("in.7z", data=b"7z\xbc\xaf\x27\x1c"), "a.zip", ["in.7z"], "damaged, or of a kind"),
    (zipped("in.zip", data=encrypted_zip()), "a.zip", ["in.zip", "x.exe"], "encrypted"),
    (zipped("x.exe")[:-10], "a.zip", [], "damaged"),
    (zipped("x.exe")[:40], "a.zip", [], "damaged"),
    (tarred("x.exe", "b.txt"), "a.tar", ["x.exe", "b.txt"], ""),
    (tarred("l" * 150 + ".exe", form=tarfile.GNU_FORMAT), "a.tar", ["l" * 150 + ".exe"], ""),
    (tarred("l" * 150 + ".exe"), "a.tar", ["l" * 150 + ".exe"], ""),
    (tarred("in.zip", data=zipped("x.exe")), "a.tar", ["in.zip", "x.exe"], ""),
    (tarred("b.txt") + tarred("x.exe"), "a.tar", ["b.txt", "x.exe"], ""),
    (tarred("b.txt")[:600] + b"?" * 1000, "a.tar", ["b.txt"], "damaged"),
    (TGZ, "a.tgz", ["x.exe", "b.txt"], ""),
    (bz2.compress(tarred("x.exe")), "a.tbz2", ["x.exe"], ""),
    (lzma.compress(tarred("x.exe")), "a.tar.xz", ["x.exe"], ""),
    (packed(b"MZ"), "x.exe.gz", ["x.exe"], ""),
    (packed(b"MZ") + packed(zipped("y.exe")), "x.exe.gz", ["x.exe"], ""),
    (packed(zipped("x.exe")), "a.gz", ["a", "x.exe"], ""),
    (packed(packed(b"MZ")), "x.exe.gz.gz", ["x.exe.gz", "x.exe"], ""),
    (TGZ[:60], "a.tgz", [], "it has no end"),
    (b"\x1f\x8b\x08" + b"?" * 20, "a.gz", [], "damaged"),
    (rar(b"x.exe"), "a.rar", ["x.exe"], ""),
    (rar(b"in.zip"), "a.rar", ["in.zip"], "an archive in a RAR archive"),
    (rar(b"x.exe", 0x8004), "a.rar", ["x.exe"], "encrypted"),
    (rar(b"x.exe")[:30], "a.rar", [], "damaged"),
    (tnef(b"x.exe", b"b.txt"), "winmail.dat", ["x.exe", "b.txt"], ""),
    (tnef(b"x.exe") + b"\x07" * 9, "winmail.dat", ["x.exe"], "damaged"),
    (b"7z\xbc\xaf\x27\x1c" + bytes(30), "a.7z", [], "damaged, or of a kind"),
    (b"no archive", "a.rar", [], "damaged, or of a kind"),
]


@pytest.mark.parametrize(
    ("data", "name", "names", "reason"), ARCHIVES, ids=[f"{place}-{one[1]}" for place, one in enumerate(ARCHIVES)]
)
def test_names_in_archives(data: bytes, name: str, names: list[str], reason: str) -> None:
    found, fault = look(data, name)
    assert list(dict.fromkeys(found)) == names
    assert fault.startswith(reason)
    assert bool(fault) is bool(reason)


def test_levels_of_archives_are_limited() -> None:
    data = zipped("x.exe")
    for level in range(budget.MAX_DEPTH - 1):
        data = zipped(f"{level}.zip", data=data)
    assert look(data)[1] == ""
    assert look(zipped("more.zip", data=data))[1] == "archives within archives too deeply"


def test_bombs_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = bytes(8 * 2**20)
    inner = zipped("x.txt", data=b"") + zeros
    for bomb in (zipped("in.zip", data=inner), packed(inner), bz2.compress(inner), lzma.compress(inner)):
        assert look(bomb)[1] == "it unpacks to very much more than it is"
    monkeypatch.setattr(budget, "MAX_OCTETS", 2**20)
    assert look(packed(tarred("x.txt", data=bytes(range(256)) * 8192)))[1] == "too large inside"


def test_entries_and_time_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(zipped("a", "b"), late=lambda: True)[1] == "it takes too long to look into"
    monkeypatch.setattr(budget, "MAX_ENTRIES", 3)
    for data in (zipped("a", "b", "c", "d"), tarred("a", "b", "c", "d"), tnef(b"a", b"b", b"c", b"d")):
        assert look(data) == (["a", "b", "c"], "more files than are looked at")


def test_a_directory_that_is_too_large_is_not_read() -> None:
    data = bytearray(zipped("a"))
    place = data.rindex(b"PK\x05\x06")
    data[place + 12 : place + 16] = struct.pack("<L", 2**30)
    assert look(bytes(data), "a.zip") == ([], "more files than are looked at")


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(
        [zipped("x.exe"), TGZ, tarred("x.exe"), rar(b"x.exe"), tnef(b"x.exe"), lzma.compress(b"x" * 99)]
    ),
    st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=6)), max_size=5),
    st.integers(0, 3000),
)
def test_damage_is_told_and_nothing_else(data: bytes, wounds: list[tuple[int, bytes]], end: int) -> None:
    octets = bytearray(data)
    for place, new in wounds:
        octets[place : place + len(new)] = new
    found, reason = look(bytes(octets[: max(end, 600)]), "a.zip")
    assert isinstance(reason, str)
    assert len(found) < 100


@pytest.mark.parametrize(
    ("head", "name", "kind"),
    [
        (b"PK\x03\x04", "x.docx", Kind.ZIP),
        (b"\x7fELF", "x.zip", Kind.ZIP),
        (b"Rar!\x1a\x07\x01\x00", "x.txt", Kind.RAR),
        (b"MSCF", "x", Kind.OTHER),
        (b"text", "x.lzh", Kind.OTHER),
        (b"text", "x.txt", None),
        (b"", "", None),
    ],
)
def test_kinds(head: bytes, name: str, kind: Kind | None) -> None:
    assert archive_kind(head, name) is kind


def test_archives_of_a_message_are_kept_for_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = AttachmentPolicy((("exe", Action.REJECT),))
    archive = base64.encodebytes(zipped("x.exe")).replace(b"\n", b"\r\n")
    part = b"--a\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n" + archive
    message = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n" + part + part + b"--a--\r\n"
    for cuts in ((), range(len(message))):
        found = search(message, policy, cuts=cuts).found
        for one in found.archives:
            one.file.seek(0)
        assert [one.file.read() for one in found.archives] == [zipped("x.exe")] * 2
        assert [one.outer.number for one in found.archives] == [2, 3]
    monkeypatch.setattr("gatepost.core.content_search.MAX_SPOOLED", 150)
    found = search(message, policy).found
    assert [one.reason for one in found.opaque] == ["too large"]
    assert len(found.archives) == 1
    closed = search(message, AttachmentPolicy(inside_archives=False))
    assert closed.found.archives == []
