"""The directory in a file: LDIF as RFC 2849 has it, faults with their line, and a file that changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.backends import directory_ldif
from gatepost.backends.directory_ldif import LdifDirectory
from gatepost.backends.ldif_records import LdifError, read_ldif
from gatepost.core.address import parse_address
from gatepost.core.manifest.read import ManifestError
from gatepost.core.manifest.settings import LdifSettings
from gatepost.core.password import make_password
from gatepost.core.ports.directory import DirectoryUnavailable, LoginVerdict


def attributes(text: str) -> list[tuple[str, dict[str, list[str]]]]:
    return [(entry.dn, entry.attributes) for entry in read_ldif(text.encode(), "x.ldif")]


def test_folding_comments_base64_and_line_ends() -> None:
    text = (
        "\ufeffversion: 1\r\n# a comment\r\n  that goes on\r\n\r\n\r\ndn: uid=a,\r\n dc=x\r\ncn:  spaces before\r\n"
        "description:: 5bGx55Sw\r\nCN;lang-ja: x\r\ncn: sec\r\n# within\r\nempty:\r\n\r\ndn:: dWlkPWI=\r\ncn: 山田"
    )
    assert attributes(text) == [
        (
            "uid=a,dc=x",
            {"cn": ["spaces before", "sec"], "description": ["山田"], "cn;lang-ja": ["x"], "empty": [""]},
        ),
        ("uid=b", {"cn": ["山田"]}),
    ]
    assert attributes(text.replace("\r\n", "\n")) == attributes(text)
    assert attributes("") == []
    assert attributes("# nothing\n\n\n") == []


def test_changes_are_applied() -> None:
    text = """dn: uid=a
cn: one
mail: old@x.test
mail: both@x.test

dn: UID=A
changetype: modify
add: mail
mail: new@x.test
-
delete: mail
mail: old@x.test
-
replace: cn
cn: two
-

dn: uid=b
changetype: add
cn: three

dn: uid=c
cn: four

dn: uid=c
changetype: delete

dn: uid=b
changetype: modify
delete: cn
"""
    assert attributes(text) == [
        ("uid=a", {"cn": ["two"], "mail": ["both@x.test", "new@x.test"]}),
        ("uid=b", {"cn": []}),
    ]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("version: 2\n", 1, "version"),
        ("cn: x\n", 1, "dn:"),
        ("dn: uid=a\nno colon\n", 2, "name: value"),
        ("dn: uid=a\ncn:: not base64!\n", 2, "base 64"),
        ("dn: uid=a\n\n folded\n", 3, "continues"),
        (" folded\n", 1, "continues"),
        ("dn: uid=a\ncn:< file:///etc/passwd\n", 2, "URL"),
        ("dn: uid=a\ncn: x\ndn: uid=b\n", 3, "empty line"),
        ("dn: uid=a\n\ndn: UID=A\n", 3, "already"),
        ("dn: nonsense\n", 1, "distinguished name"),
        ("dn: uid=a\nchangetype: modify\nadd: x\nx: y\n", 1, "not in the file"),
        ("dn: uid=a\n\ndn: uid=a\nchangetype: modrdn\n", 4, "not supported"),
        ("dn: uid=a\n\ndn: uid=a\nchangetype: modify\nincrement: x\n", 5, "add:"),
        ("dn: uid=a\n\ndn: uid=a\nchangetype: modify\nadd: x\ny: z\n", 6, "value of x"),
        ("dn: uid=a\nc n: x\n", 2, "name: value"),
    ],
)
def test_faults_are_told_with_their_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(LdifError) as fault:
        attributes(text)
    assert (fault.value.where, fault.value.field) == ("x.ldif", f"line {line}")
    assert reason in fault.value.reason


def test_bytes_that_are_no_utf8_are_told_with_their_line() -> None:
    with pytest.raises(LdifError, match=r"line 2: .*UTF-8"):
        read_ldif(b"dn: uid=a\ncn: M\xfcller\n", "x.ldif")


@given(st.binary(max_size=200) | st.text(st.sampled_from("dn:=a,\n #-"), max_size=60).map(str.encode))
def test_any_file_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ManifestError):
        read_ldif(data, "x")


# --- the file ---

ALICE = "dn: uid=alice\nuid: alice\nmail: alice@example.test\nuserPassword: pw\n"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_ldif, "POLL_SECONDS", 0.01)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def knows(directory: LdifDirectory, name: str) -> bool:
    return await directory.lookup(parse_address(f"{name}@example.test")) is not None


@pytest.mark.usefixtures("quick")
async def test_a_changed_file_is_read_again_and_a_bad_one_is_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "users.ldif"
    path.write_text(ALICE)
    directory = LdifDirectory(LdifSettings(file="users.ldif"), tmp_path)
    await directory.start()
    assert await knows(directory, "alice")
    path.write_text(ALICE.replace("alice", "bobby"))
    await until(lambda: "ldif_read" in capsys.readouterr().out)
    assert await knows(directory, "bobby")
    assert not await knows(directory, "alice")
    # As a ConfigMap changes: another file under the same name.
    (tmp_path / "new").write_text("dn: uid=x\nbroken")
    os.replace(tmp_path / "new", path)
    heard: list[str] = []

    def told() -> bool:
        heard.append(capsys.readouterr().out)
        return "line 2" in heard[-1]

    await until(told)
    assert await knows(directory, "bobby")
    path.unlink()
    await until(lambda: "ldif_unusable" in capsys.readouterr().out)
    assert await knows(directory, "bobby")
    path.write_text(ALICE)
    await until(lambda: "ldif_read" in capsys.readouterr().out)
    assert await knows(directory, "alice")
    await directory.close()


@pytest.mark.parametrize("content", [None, "broken"])
async def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "users.ldif").write_text(content)
    directory = LdifDirectory(LdifSettings(file="users.ldif"), tmp_path)
    with pytest.raises(ManifestError, match=r"users\.ldif"):
        await directory.start()
    with pytest.raises(DirectoryUnavailable):
        await knows(directory, "alice")
    await directory.close()


async def test_costly_passwords_and_several_of_them(tmp_path: Path) -> None:
    stored = make_password("new password", bytes(16), 1000)
    (tmp_path / "users.ldif").write_text(ALICE + f"userPassword: {stored}\nuserPassword: {{CRYPT}}x\n")
    directory = LdifDirectory(LdifSettings(file="users.ldif"), tmp_path)
    await directory.start()
    for password, verdict in [
        ("pw", LoginVerdict.ACCEPTED),
        ("new password", LoginVerdict.ACCEPTED),
        ("x", LoginVerdict.REFUSED),
        (stored, LoginVerdict.REFUSED),
    ]:
        assert (await directory.authenticate("alice", password)).verdict is verdict
        assert (await directory.authenticate("nobody", password)).verdict is LoginVerdict.REFUSED
    await directory.close()
