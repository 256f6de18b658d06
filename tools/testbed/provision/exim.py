"""Exim for benchmarks, unpacked beside the package database.

Debian's Exim and Postfix exclude each other as the machine's mail server, and a benchmark wants both. Exim's
program needs nothing but its libraries, so its packages are unpacked into the cache instead of being installed.
"""

import os
import pwd
import shutil
from pathlib import Path

from testbed.provision import apt, command
from testbed.provision.cache import built
from testbed.provision.errors import ProvisionError

PACKAGE = "exim4-daemon-light"
USER = "Debian-exim"
LIBRARY_FOLDER = "usr/lib/x86_64-linux-gnu"
DOWNLOAD_SECONDS = 300


def install() -> Path:
    """The folder with Exim's unpacked packages: the program is `usr/sbin/exim4` below it.

    Run it with `LD_LIBRARY_PATH` set to LIBRARY_FOLDER below it, where libraries may be that the machine lacks.
    """
    folder = built("exim", os.uname().machine, _unpack)
    _make_user()
    return folder


def _unpack(folder: Path) -> None:
    if shutil.which("apt-get") is None:
        raise ProvisionError("Exim comes from Debian's packages, and there is no apt-get here")
    apt.refresh_lists()
    packages = [PACKAGE, *_missing_libraries()]
    command.run(["apt-get", "--quiet=2", "download", *packages], cwd=folder, seconds=DOWNLOAD_SECONDS)
    for package in folder.glob("*.deb"):
        command.run(["dpkg-deb", "--extract", package, folder], seconds=DOWNLOAD_SECONDS)
        package.unlink()
    if not (folder / "usr/sbin/exim4").is_file():
        raise ProvisionError(f"{PACKAGE} holds no usr/sbin/exim4")


def _make_user() -> None:
    """Makes the user whose name is compiled into Debian's Exim, which doesn't even show its version without."""
    try:
        pwd.getpwnam(USER)
    except KeyError:
        if os.geteuid() != 0:
            raise ProvisionError(f"Exim needs the user {USER}, whom only root can make") from None
        words = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/var/spool/exim4"]
        command.run([*words, "--shell", "/usr/sbin/nologin", USER], seconds=60)


def _missing_libraries() -> list[str]:
    """The libraries that Exim directly depends on and that aren't installed."""
    answer = command.run(["apt-cache", "depends", "--important", "--no-recommends", PACKAGE], seconds=60)
    names = [line.split("Depends:")[1].strip() for line in answer.splitlines() if "Depends:" in line]
    return [name for name in names if name.startswith("lib") and not apt.is_installed(name)]
