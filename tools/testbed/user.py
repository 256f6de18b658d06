"""The ordinary user that servers run as when the tests run as root.

slapd, Dovecot, Knot and Unbound behave differently as root (or refuse to start), and a test that passes only
because the server may write everywhere proves little.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from testbed.provision.cache import locked

NAME = "gatepost-test"
COMMAND_SECONDS = 30


@dataclass(frozen=True)
class User:
    """An account by name and number; `group` is the name of its primary group."""

    name: str
    uid: int
    gid: int
    group: str

    def own(self, path: Path) -> None:
        """Gives `path` and everything below it to this user (only root can; for others it is theirs already)."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)
            for below in path.rglob("*"):
                os.chown(below, self.uid, self.gid, follow_symlinks=False)

    def command_prefix(self, death_signal: str) -> list[str]:
        """Words before a command: run it as this user, and send it `death_signal` when its parent dies."""
        words = ["setpriv", "--pdeathsig", death_signal]
        if os.geteuid() == 0 and self.uid != 0:
            words += ["--reuid", str(self.uid), "--regid", str(self.gid), "--clear-groups"]
        return words


def current() -> User:
    """The user that we are."""
    return _from_entry(pwd.getpwuid(os.geteuid()))


def ordinary() -> User:
    """The user `gatepost-test`, made when missing; the current user when we aren't root anyway."""
    if os.geteuid() != 0:
        return current()
    try:
        return _from_entry(pwd.getpwnam(NAME))
    except KeyError:
        pass
    with locked("user"):
        try:
            return _from_entry(pwd.getpwnam(NAME))
        except KeyError:
            subprocess.run(
                [
                    *("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"),
                    *("--shell", "/usr/sbin/nologin", NAME),
                ],
                check=True,
                timeout=COMMAND_SECONDS,
            )
            return _from_entry(pwd.getpwnam(NAME))


def reachable(folder: Path, user: User) -> tuple[Path, bool]:
    """A folder for a server's state that `user` can enter, and whether it is outside `folder`.

    Test runners keep their temporary folders closed to others (mode 0700 on a parent, set again by the next
    run), so for another user than ourselves the state may have to live elsewhere under the system's temporary
    folder; the caller then removes it.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if user.uid == os.geteuid() or all(parent.stat().st_mode & 0o001 for parent in folder.parents):
        user.own(folder)
        return folder, False
    elsewhere = Path(tempfile.mkdtemp(prefix="gatepost-testbed-"))
    elsewhere.chmod(0o755)
    user.own(elsewhere)
    return elsewhere, True


def forget(folder: Path, outside: bool) -> None:
    """Removes a folder from `reachable` if it was made outside."""
    if outside:
        shutil.rmtree(folder, ignore_errors=True)


def _from_entry(entry: pwd.struct_passwd) -> User:
    import grp

    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, grp.getgrgid(entry.pw_gid).gr_name)
