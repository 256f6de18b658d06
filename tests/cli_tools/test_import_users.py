"""Users from CSV: hashed passwords in LDIF that the directory reads, and faults with their line."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gatepost.backends.directory_ldif import LdifDirectory
from gatepost.cli.main import main
from gatepost.core.address import parse_address
from gatepost.core.imports.users import UsersError, ldif_of, read_users
from gatepost.core.manifest.settings import AttributeMap, LdifSettings
from gatepost.core.ports.directory import LoginVerdict

CSV = (
    "Name,Password,Full Name,Address,Quota Bytes,Enabled,Login Enabled\n"
    'taro,"pass,word ",山田 太郎,"taro taro.yamada@example.jp",1048576,,\n'
    "hanako,secret-h,Hanako,,,yes,no\n"
    "gone,secret-g,,,,no,\n"
    "hashed,{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0,,,,,\n"
    '"smith, j",secret-s,,js,,,\n'
)


def write(folder: Path, text: str) -> Path:
    file = folder / "users.csv"
    file.write_text(text, "utf-8")
    return file


def imported(folder: Path, text: str) -> int:
    to = folder / "users.ldif"
    quick = ("--iterations", "10000")
    return main(["import", "users", str(write(folder, text)), "--domain", "example.jp", "--to", str(to), *quick])


@pytest.mark.requirement("S0-8")
async def test_users_can_log_in_and_get_mail_afterwards(tmp_path: Path) -> None:
    """Fails without an import of many users with their passwords, from another platform's list."""
    assert imported(tmp_path, CSV) == 0
    file = tmp_path / "users.ldif"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text("utf-8")
    assert "secret-" not in text
    assert "pass,word" not in text
    directory = LdifDirectory(LdifSettings("users.ldif", AttributeMap(quota_bytes="quotaBytes")), tmp_path)
    await directory.start()
    try:
        assert (await directory.authenticate("taro", "pass,word ")).verdict is LoginVerdict.ACCEPTED
        assert (await directory.authenticate("taro", "pass,word")).verdict is LoginVerdict.REFUSED
        assert (await directory.authenticate("hanako", "secret-h")).verdict is LoginVerdict.REFUSED
        assert (await directory.authenticate("smith, j", "secret-s")).verdict is LoginVerdict.ACCEPTED
        entry = await directory.lookup(parse_address("taro.yamada@example.jp"))
        assert entry is not None
        assert (entry.name, entry.quota_bytes) == ("taro", 1048576)
        gone = await directory.lookup(parse_address("gone@example.jp"))
        assert gone is not None
        assert not gone.enabled
    finally:
        await directory.close()


def test_a_list_of_name_and_password_alone() -> None:
    users = read_users("taro,geheim\nhanako,secret,Hanako Sato\n")
    text = "".join(ldif_of(users, "example.jp", lambda password: f"<{len(password)}>"))
    assert "mailLocalAddress: taro@example.jp\n" in text
    assert "cn: Hanako Sato\nsn: Sato\n" in text
    assert "userPassword:: PDY+\n" in text


def test_a_password_of_two_users_is_hashed_for_each(tmp_path: Path) -> None:
    assert imported(tmp_path, "a,same\nb,same\n") == 0
    lines = [line for line in (tmp_path / "users.ldif").read_text().splitlines() if line.startswith("userPassword")]
    assert len(set(lines)) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no users"),
        ("taro,x\n,y\n", "line 2: a name"),
        ("taro,x\nTARO,y\n", "line 2: 'TARO' stands twice"),
        ("taro,x,y,z\n", "line 1: 4 fields where 3"),
        ("name,shoe size\ntaro,42\n", "columns shoesize are not known"),
        ("name,quotaBytes\ntaro,much\n", "line 2: quotaBytes is a number"),
        ('name,password\ntaro,"open\n', "line 2"),
    ],
)
def test_faults_name_their_line(text: str, says: str) -> None:
    with pytest.raises(UsersError, match=says):
        read_users(text)


def test_nothing_is_written_after_a_fault_and_nothing_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(tmp_path, "taro,x,y\n..bad..,x,y\n") == 2
    assert "user '..bad..': '..bad..' is not an address" in capsys.readouterr().err
    assert not (tmp_path / "users.ldif").exists()
    (tmp_path / "users.ldif").write_text("mine")
    assert imported(tmp_path, "taro,x\n") == 2
    assert (tmp_path / "users.ldif").read_text() == "mine"
