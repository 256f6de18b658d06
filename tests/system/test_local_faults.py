"""The machine itself at fault, standalone: disks that are full or read-only, a log that is damaged or in use.

Full and read-only file systems are small tmpfs mounted below the test's own folder, so these tests need root.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from testbed.installation import GATEPOST, Member
from testbed.load import token_of
from testbed.outages import BACK_SECONDS, TOLERANCE, until
from testbed.probe import Saw, send
from testbed.process import ServerError

pytestmark = [pytest.mark.servers, pytest.mark.lengthy]

DISK = "24m"
ROOM = 64 * 1024  # what is left by fill() is less than this
COMMAND_SECONDS = 30
REFUSAL_SECONDS = 10.0
RETRY_SECONDS = 60.0
RECIPIENT = "ann@local.test"

MANIFESTS = """
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: local}
spec:
  domain: local.test
  recipients: {source: {type: Static, addresses: [ann]}}
"""


def settings(mail: Path | str = "mail") -> dict[str, Any]:
    return {
        "hostname": "mx.local.test",
        "log": {"sqlite": {}, "partitions": 2},
        "listeners": [{"name": "mx", "role": "mx", "address": "127.0.0.1:0"}],
        "stores": {"local": {"maildir": {"path": str(mail)}}},
        "telemetry": {"logFormat": "json"},
    }


def standalone(folder: Path, **changed: Any) -> Member:
    own = Member("run", "standalone", folder, settings(**changed))
    (own.config / "objects.yaml").write_text(MANIFESTS)
    return own


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own on `folder`."""
    folder.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True, timeout=COMMAND_SECONDS)


def mount(*words: str | Path) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    assert done.returncode == 0, f"these tests mount file systems, as root: {done.stderr}"


def fill(disk: Path) -> Path:
    """Leave nothing free on a disk; the returned file holds the space."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        for size in (1024 * 1024, 4096):
            try:
                while True:
                    stream.write(bytes(size))
            except OSError:
                continue
    free = os.statvfs(disk)
    assert free.f_bavail * free.f_frsize < ROOM
    return filler


def arrived(mail: Path) -> set[str]:
    return {token_of(path.read_bytes()) for path in mail.glob("*/new/*")}


def refused(own: Member, promised: set[str]) -> Saw:
    """Send until a message is refused; what is accepted before that is promised like all else."""
    seen: list[Saw] = []

    def one() -> bool:
        token = f"during{len(seen)}"
        seen.append(send(own.mx, RECIPIENT, token))
        if seen[-1].code == 250:
            promised.add(token)
        return seen[-1].code != 250

    until(one, BACK_SECONDS * TOLERANCE)
    return seen[-1]


def accepted_again(own: Member, token: str) -> None:
    until(lambda: send(own.mx, RECIPIENT, token).code == 250, BACK_SECONDS * TOLERANCE)


@pytest.fixture(scope="module", autouse=True)
def full_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Member, Path]]:
    """A gateway whose store's disk was full for a moment: begun first, since its retry takes a minute."""
    folder = tmp_path_factory.mktemp("full-store")
    with small_disk(folder / "mail") as disk, standalone(folder / "standalone", mail=disk) as own:
        assert isinstance(own, Member)
        assert send(own.mx, RECIPIENT, "before").code == 250
        until(lambda: arrived(disk) == {"before"}, BACK_SECONDS * TOLERANCE)
        filler = fill(disk)
        assert send(own.mx, RECIPIENT, "during").code == 250
        until(lambda: deferrals(own) == 1, BACK_SECONDS * TOLERANCE)
        filler.unlink()
        yield own, disk


def deferrals(own: Member) -> float:
    return sum(value for name, value in own.metrics().items() if name.startswith("gatepost_retry_deferrals"))


def test_the_log_s_disk_is_full(tmp_path: Path) -> None:
    """4xx and no false 250 while nothing can be written, good again by itself, and what got 250 arrives.

    Fails when an append that failed is answered with 250, or when a failed write spoils the log for good.
    """
    with small_disk(tmp_path / "standalone" / "state") as disk:
        own = standalone(tmp_path / "standalone", mail=tmp_path / "mail")
        with own:
            assert send(own.mx, RECIPIENT, "before").code == 250
            until(lambda: arrived(tmp_path / "mail") == {"before"}, BACK_SECONDS * TOLERANCE)
            filler = fill(disk)
            promised = {"before", "after", "restarted"}
            saw = refused(own, promised)
            assert own.is_ready()
            filler.unlink()
            assert saw.code in (421, 451, 452), saw
            assert saw.seconds <= REFUSAL_SECONDS * TOLERANCE, saw
            accepted_again(own, "after")
            own.restart()
            accepted_again(own, "restarted")
            until(lambda: arrived(tmp_path / "mail") >= promised, BACK_SECONDS * TOLERANCE)


@pytest.mark.parametrize("damage", ["head", "page", "garbage"])
def test_a_damaged_log_is_named_and_left_alone(tmp_path: Path, damage: str) -> None:
    """The start fails with the file and what to do, and changes nothing. Fails when a new log is made silently."""
    own = standalone(tmp_path / "standalone")
    with own:
        for number in range(20):
            assert send(own.mx, RECIPIENT, f"d{number}").code == 250
        until(lambda: len(arrived(own.state / "mail")) == 20, BACK_SECONDS * TOLERANCE)
    file = own.state / "log.sqlite3"
    spoil(file, damage)
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    done = run(own)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    says(said, str(file), "restore it from a backup")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before


def spoil(file: Path, damage: str) -> None:
    data = bytearray(file.read_bytes())
    match damage:
        case "head":
            data[:100] = bytes(100)
        case "page":
            with sqlite3.connect(file) as connection:
                (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'records'").fetchone()
                (size,) = connection.execute("PRAGMA page_size").fetchone()
            connection.close()
            data = bytearray(file.read_bytes())
            data[(page - 1) * size : page * size] = b"\xff" * size
        case _:
            data = bytearray(b"this is no database\n" * 500)
    file.write_bytes(data)


def says(said: str, *parts: str) -> None:
    """A person is told these things, and shown no traceback."""
    for part in parts:
        assert part in said
    assert "Traceback" not in said


def run(own: Member) -> subprocess.CompletedProcess[str]:
    words: list[str | Path] = [GATEPOST, "run", "--config", own.config, "--state", own.state]
    return subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)


def test_a_log_in_use_is_named(tmp_path: Path) -> None:
    """A second process says who has the log, and harms nothing. Fails without the lock on the file."""
    own = standalone(tmp_path / "standalone")
    with own:
        done = run(own)
        said = done.stdout + done.stderr
        assert done.returncode != 0
        says(said, "in use by another process", str(own.pid))
        assert send(own.mx, RECIPIENT, "still").code == 250
        until(lambda: arrived(own.state / "mail") == {"still"}, BACK_SECONDS * TOLERANCE)


def test_a_log_locked_by_another_program(tmp_path: Path) -> None:
    """`sqlite3` with an open transaction on the file: 4xx, and good again by itself when it ends.

    Fails when a lock that another program holds ends the process, or when 250 is answered meanwhile.
    """
    own = standalone(tmp_path / "standalone")
    with own, ExitStack() as stack:
        assert send(own.mx, RECIPIENT, "before").code == 250
        until(lambda: arrived(own.state / "mail") == {"before"}, BACK_SECONDS * TOLERANCE)
        other = sqlite3.connect(own.state / "log.sqlite3", isolation_level=None, timeout=COMMAND_SECONDS)
        stack.callback(other.close)
        other.execute("BEGIN IMMEDIATE")
        saw = send(own.mx, RECIPIENT, "during")
        assert saw.code in (421, 451), saw
        assert saw.seconds <= REFUSAL_SECONDS * TOLERANCE, saw
        other.execute("ROLLBACK")
        accepted_again(own, "after")
        until(lambda: arrived(own.state / "mail") >= {"before", "after"}, BACK_SECONDS * TOLERANCE)


def test_a_state_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """The start fails with the path and the reason, without a traceback."""
    with small_disk(tmp_path / "standalone" / "state") as disk:
        own = standalone(tmp_path / "standalone")
        mount("-o", f"remount,ro,size={DISK}", disk)
        with pytest.raises(ServerError):
            own.start()
        said = own.log.read_text()
        says(said, str(own.state))


def test_the_disk_of_a_maildir_store_is_full(full_store: tuple[Member, Path]) -> None:
    """The mail waits in a retry tier and is stored when there is room. Fails when a full disk bounces it."""
    own, disk = full_store
    assert send(own.mx, RECIPIENT, "after").code == 250
    until(lambda: "after" in arrived(disk), BACK_SECONDS * TOLERANCE)
    until(lambda: arrived(disk) == {"before", "during", "after"}, RETRY_SECONDS + BACK_SECONDS * TOLERANCE)
