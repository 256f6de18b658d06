"""Passwords that a program with the checkpassword interface decides about."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import structlog.testing

from gatepost.backends.directory_ldif import LdifDirectory
from gatepost.backends.password_program import PATH, ProgramDirectory
from gatepost.core.address import parse_address
from gatepost.core.compile.surroundings import mechanisms_of
from gatepost.core.manifest.relay_policy import Mechanism
from gatepost.core.manifest.settings import DirectorySettings, LdifSettings, PasswordProgram
from gatepost.core.ports.directory import DirectoryUnavailable, LoginVerdict

LDIF = """\
dn: uid=alice,dc=example
objectClass: inetOrgPerson
uid: alice
mail: alice@example.test
userPassword: not this one

dn: uid=gone,dc=example
objectClass: inetOrgPerson
uid: gone
employeeType: disabled
"""
# What it was given, then exits by the password.
PROGRAM = """\
#!{python} -ES
import os, signal, sys, time
data = os.read(3, 513)
with open({seen!r}, "ab") as seen:
    environment = open("/proc/self/environ").read()
    seen.write(b"%r %r %r\\n" % (data, environment, sys.argv[1:]))
login, password, timestamp, end = data.split(b"\\0")
if password == b"hang":
    if os.fork() == 0:
        time.sleep(600)
    with open({seen!r}, "ab") as seen:
        seen.write(b"group %d\\n" % os.getpgrp())
    time.sleep(600)
if password == b"crash":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit({{b"right": 0, b"wrong": 1, b"misused": 2, b"later": 111}}[password])
"""


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


Make = Callable[..., "asyncio.Future[ProgramDirectory]"]


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    return tmp_path / "seen"


@pytest.fixture
async def make(tmp_path: Path, seen: Path) -> AsyncIterator[Make]:
    (tmp_path / "users.ldif").write_text(LDIF)
    program = tmp_path / "check password"  # a space, which a shell would trip over
    program.write_text(PROGRAM.format(python=sys.executable, seen=str(seen)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    made = []

    async def directory(timeout: str = "20s", concurrent: int = 4, command: str = "") -> ProgramDirectory:
        settings = PasswordProgram((command or str(program), "/bin/true; echo $HOME"), timeout, concurrent)
        one = ProgramDirectory(LdifDirectory(LdifSettings("users.ldif"), tmp_path), settings)
        await one.start()
        made.append(one)
        return one

    yield directory  # type: ignore[misc]
    for one in made:
        await one.close()


@pytest.mark.requirement("S2-6")
async def test_the_program_decides(make: Make, seen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails without a password check that can be exchanged: the stored password does not count, the program's word
    does, and it is given what the interface says, and nothing of ours."""
    monkeypatch.setenv("GATEPOST_SECRET", "x")
    directory = await make()
    accepted = await directory.authenticate("alice", "right")
    assert (accepted.verdict, accepted.entry and accepted.entry.address) == (
        LoginVerdict.ACCEPTED,
        "alice@example.test",
    )
    told = f"b'alice\\x00right\\x00\\x00' 'PATH={PATH}\\x00' ['/bin/true; echo $HOME']\n"
    assert read(seen) == told
    assert (await directory.authenticate("ALICE@example.test", "right")).entry == accepted.entry
    for login, password, verdict in (
        ("alice", "wrong", LoginVerdict.REFUSED),
        ("gone", "right", LoginVerdict.ACCOUNT_DISABLED),
        ("nobody", "right", LoginVerdict.REFUSED),
    ):
        assert (await directory.authenticate(login, password)).verdict is verdict, login
    assert "nobody" in read(seen), "a login that does not exist must take as long"
    assert (await directory.lookup(parse_address("alice@example.test"))) == accepted.entry
    account = await directory.account("alice")
    assert account is not None
    assert account.clear == account.verifiers == (), "the stored password is not what counts"


@pytest.mark.parametrize(
    ("login", "password"),
    [("alice", ""), ("", "right"), ("alice", "ri\0ght"), ("al\0ice", "right"), ("alice", "x" * 510)],
)
async def test_what_is_not_asked(make: Make, seen: Path, login: str, password: str) -> None:
    directory = await make()
    assert (await directory.authenticate(login, password)).verdict is LoginVerdict.REFUSED
    assert read(seen) == ""


@pytest.mark.parametrize("password", ["misused", "later", "crash", "no exit code of its own"])
async def test_everything_but_0_and_1(make: Make, password: str) -> None:
    directory = await make()
    if password.startswith("no"):
        # A traceback's exit code is 1: a broken program is a "no", never a "yes".
        assert (await directory.authenticate("alice", password)).verdict is LoginVerdict.REFUSED
        return
    with structlog.testing.capture_logs() as lines, pytest.raises(DirectoryUnavailable):
        await directory.authenticate("alice", password)
    (line,) = (one for one in lines if one["event"] == "password_program_failed")
    assert line["code"] == {"misused": 2, "later": 111, "crash": -9}[password]
    assert password not in repr(line).replace("password_program", "")


async def test_one_that_hangs_is_killed_with_its_children(make: Make, seen: Path) -> None:
    directory = await make(timeout="1s", concurrent=1)
    with pytest.raises(DirectoryUnavailable):
        await directory.authenticate("alice", "hang")
    group = int(read(seen).split("group ")[1])
    async with asyncio.timeout(10):
        while _lives(group):
            await asyncio.sleep(0.01)
    directory_again = await make()
    assert (await directory_again.authenticate("alice", "right")).verdict is LoginVerdict.ACCEPTED


async def test_only_so_many_at_once(make: Make) -> None:
    """The second one waits for its place, and no longer than the limit."""
    directory = await make(timeout="300ms", concurrent=1)
    answers = await asyncio.gather(
        directory.authenticate("alice", "hang"),
        directory.authenticate("alice", "hang"),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [DirectoryUnavailable] * 2


async def test_one_that_is_not_there(make: Make, tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        directory = await make(command=str(tmp_path / "missing"))
        with pytest.raises(DirectoryUnavailable):
            await directory.authenticate("alice", "right")
    assert [line["event"] for line in lines] == ["password_program_missing"] * 2


async def test_no_descriptor_is_left_open(make: Make) -> None:
    directory = await make()
    await directory.authenticate("alice", "right")
    before = os.listdir("/proc/self/fd")
    for password in ("right", "wrong"):
        await directory.authenticate("alice", password)
    assert os.listdir("/proc/self/fd") == before


def test_it_checks_passwords_only() -> None:
    program = PasswordProgram(("/bin/false",))
    found = mechanisms_of(DirectorySettings(ldif=LdifSettings("x"), password_program=program))
    assert found == (Mechanism.PLAIN, Mechanism.LOGIN)


def _lives(group: int) -> bool:
    """Whether a process of the group runs; one that is only not reaped yet does not."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False
